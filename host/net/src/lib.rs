//! How machines talk to each other: HTTP clients, what all our servers share, and discovery.
//!
//! Every HTTP client of the project is built here, so that no client can leak a token to a proxy.

mod allow;
mod client;
mod discovery;
pub mod http;
mod lines;
mod roots;

pub use allow::{Allowed, InvalidNetwork};
pub use client::{authorized, is_local, machine_client, server_client};
pub use discovery::{Announced, Announcement, DiscoveryError, Found, discover, discover_seeders};
pub use lines::{LineError, Lines};
