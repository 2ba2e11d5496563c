//! llama.cpp's RPC between two machines, through a worker's own port.
//!
//! The RPC protocol has no authentication and no heartbeats, and it sends all weights again at every load. This crate
//! therefore puts a tunnel between the machines. llama.cpp connects to loopback on both of them. The tunnel requires
//! the worker's token, sends heartbeats, and replaces tensors that the worker has cached by their SHA-256.

mod alloc_size;
mod cache;
mod client;
mod command_relay;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod graph;
mod heartbeat;
mod loopback;
mod protocol;
mod quota;
mod reply_relay;
mod rpc;
mod server;
#[cfg(test)]
mod testing;

pub use cache::TensorCache;
pub use client::{TrafficStats, Tunnel, TunnelError, TunnelWatch, WorkerEndpoint};
pub use loopback::verify_server;
pub use protocol::UPGRADE_PROTOCOL;
pub use quota::MemoryQuota;
pub use server::serve_tunnel;
