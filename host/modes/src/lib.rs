//! The modes: backends made of other backends and a component that decides.
//!
//! Each mode owns its job, its WIT host functions, its component and its backend. An instance serves one request, or
//! one question to a policy. Whatever a component does, the request's [`Job`] comes back from [`Plugin::run`], so that
//! the host can finish it by plain decoding.

mod bindings;
mod consensus;
mod decoding;
mod gate;
mod kinds;
mod pooling;
mod speculation;
pub mod swarm;

pub use bindings::tightwad::plugin::ballots::{Ballot, Proposal as Vote, Ruling};
pub use consensus::at_work::PolicyAtWork;
pub use consensus::backend::Consensus;
pub use consensus::policy::PolicyPlugin;
pub use decoding::component::Plugin;
pub use decoding::job::Job;
pub use decoding::seat::Raced;
pub use decoding::totals::Totals;
pub use gate::backend::{Gate, GateParts, GateTotals};
pub use gate::cache::ReviewCache;
pub use gate::component::GatePlugin;
pub use gate::policy::GatePolicyPlugin;
pub use kinds::KINDS;
pub use pooling::component::PlacementPlugin;
pub use pooling::plan::{Layer, Machine, Plan, Refusal, Shape, Share, Shortage};
pub use speculation::{ApproximatePlugin, Speculation};
pub use swarm::component::SwarmPlugin;
