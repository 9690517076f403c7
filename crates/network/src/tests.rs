//! The real thing: objects through the gate, bridges and rules in a namespace, dnsmasq, and guests that are namespaces behind real taps.
//! Needs root; says so loudly when skipped.

mod admission;
mod guest;
mod lab;
mod life;
