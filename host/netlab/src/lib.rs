//! Networks for tests and benchmarks on one machine.
//!
//! A [`Machine`] is a network namespace with its own link. A [`Proxy`] is a link with a delay, faults and byte
//! counters. The proxy delays bytes itself, because some kernels lack `netem`.

mod machine;
mod proxy;

pub use machine::{Forwarding, Machine, available};
pub use proxy::{Faults, Proxy};
