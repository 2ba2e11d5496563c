//! HTTP clients, shared parts of HTTP servers, and discovery on the local network.
//!
//! This crate builds every HTTP client of the project, so that no client can leak a token to a proxy.

mod allowed_network;
mod bounded;
mod client;
mod discovery;
pub mod door;
mod excerpt;
pub mod http;
mod lines;
mod machine_client;
mod roots;
mod scoped_host;
mod server_url;
pub mod tls;

pub use allowed_network::{AllowedNetwork, InvalidNetwork};
pub use bounded::{Reply, ReplyError, ReplyLimits};
pub use client::{authorized, is_local, machine_client, server_client};
pub use discovery::{
    Announcement, DiscoveredNode, DiscoveryError, SeederDiscovery, discover_nodes, discover_seeders, hostname,
};
pub use excerpt::{MAX_EXCERPT_CHARACTERS, excerpt, is_invisible};
pub use lines::{LineError, Lines};
pub use machine_client::{ClientError, MachineClient, MachineRequest, RemoteMachine, SendError};
pub use server_url::{InvalidUrl, ServerUrl};
