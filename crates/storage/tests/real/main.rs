//! Storage against the real thing: `qemu-img`, HTTP and HTTPS servers, full disks, QEMU.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod files;
mod recipes;
mod uploads;
mod volumes;
mod world;
