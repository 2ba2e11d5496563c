//! Models on other machines: the node protocol, its client and its server.
//!
//! Token ids, their text and single probabilities cross the network. `host/book/src/protocols/node.md` documents every
//! field.

mod client;
#[doc(hidden)]
pub mod fuzzing;
mod protocol;
mod server;
#[cfg(test)]
mod testing;

pub use client::error::ConnectError;
pub use client::link::NodeCounters;
pub use client::model::{Node, NodeSpec};
pub use client::probe::{NodeHealth, probe};
pub use protocol::facts::{NodeFacts, NodeModel};
pub use protocol::hash::TokenHash;
pub use server::registry::SessionLimits;
pub use server::routes::routes;
pub use server::service::NodeService;
