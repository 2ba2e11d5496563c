//! HTTP clients, shared parts of HTTP servers, and discovery on the local network.
//!
//! This crate builds every HTTP client of the project, so that no client can leak a token to a proxy.

mod allowed_network;
mod client;
mod discovery;
pub mod http;
mod lines;
mod roots;

pub use allowed_network::{AllowedNetwork, InvalidNetwork};
pub use client::{authorized, is_local, machine_client, server_client};
pub use discovery::{
    Announcement, DiscoveredNode, DiscoveryError, SeederDiscovery, discover_nodes, discover_seeders,
};
pub use lines::{LineError, Lines};
