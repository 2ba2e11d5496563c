//! Models on other machines: the protocol of `tightwad node`, its client and its server.
//!
//! Token ids, their text and single probabilities travel; `host/PROTOCOL.md` has every field.

mod client;
mod protocol;
mod server;

pub use client::link::Counts as NodeCounts;
pub use client::node::{Node, NodeHealth, NodeSpec, probe};
pub use protocol::facts::{NodeFacts, NodeModel};
pub use protocol::hash::TokenHash;
pub use server::lent::Lent;
pub use server::registry::SessionLimits;
pub use server::routes::routes;
