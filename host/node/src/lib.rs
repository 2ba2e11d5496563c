//! Models on other machines: the protocol of `tightwad node`, its client and its server.
//!
//! Token ids, their text and single probabilities travel; `host/PROTOCOL.md` has every field.

mod client;
mod protocol;
mod server;
#[cfg(test)]
mod testing;

pub use client::error::ConnectError;
pub use client::link::Counts as NodeCounts;
pub use client::model::{Node, NodeSpec};
pub use client::probe::{NodeHealth, probe};
pub use protocol::facts::{NodeFacts, NodeModel};
pub use protocol::hash::TokenHash;
pub use server::lent::Lent;
pub use server::registry::SessionLimits;
pub use server::routes::routes;
