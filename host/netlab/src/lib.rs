//! Networks for tests and benchmarks, on one machine: a [`Machine`] is a network namespace with a wire of
//! its own, a [`Proxy`] a link with delay, faults and a meter. Kernels without `netem` know no delay.

mod machine;
mod proxy;

pub use machine::{Forwarding, Machine, available};
pub use proxy::{Faults, Proxy};
