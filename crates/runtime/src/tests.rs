//! The spine over the memory store, with a demo kind: one folder's worth of declaration, nothing else.

mod audit_chain;
mod audit_trail;
mod bad_days;
mod batches;
mod belonging;
pub(crate) mod demo;
mod life_of_an_object;
mod over_the_link;
mod procedures;
mod survival;
mod tasks;
