//! llama.cpp's RPC between two machines, through a worker's own port.
//!
//! The RPC protocol has no authentication, no signs of life, and sends the same weights again for every
//! load. So both ends of a connection are ours: llama.cpp talks to loopback on either machine, and between
//! them its commands travel in frames, behind the worker's token, with heartbeats; tensors that the
//! worker has seen before travel as their SHA-256.

mod alive;
mod cache;
mod far;
mod frame;
mod graph;
mod near;
mod protocol;
mod sizes;
#[cfg(test)]
mod testing;

pub use cache::Cache;
pub use far::{Allowance, serve_tunnel};
pub use near::{FarEnd, Meter, Tunnel, TunnelFault, TunnelWatch};
pub use protocol::UPGRADE;
