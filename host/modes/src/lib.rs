//! The modes: backends that consist of other backends and a component that decides.
//!
//! Each mode has its own request state, WIT host functions, component type and backend. An instance of a driver serves
//! one request. [`ModeDriver::run`] always returns the request's [`Job`], even if the component fails. The host then
//! completes the request by plain decoding.

mod bindings;
mod consensus;
mod decoding;
mod gate;
mod kinds;
mod pooling;
mod settings;
mod speculation;
pub mod swarm;

pub use bindings::tightwad::plugin::ballots::{Ballot, Proposal as BallotProposal, Ruling};
pub use consensus::backend::Consensus;
pub use consensus::policy::ConsensusPolicy;
pub use consensus::policy_handle::PolicyHandle;
pub use decoding::component::ModeDriver;
pub use decoding::drafter_slot::RaceStats;
pub use decoding::job::Job;
pub use decoding::totals::Totals;
pub use gate::backend::{Gate, GateParts, GateTotals};
pub use gate::cache::ReviewCache;
pub use gate::component::GateDriver;
pub use gate::policy::GatePolicy;
pub use kinds::KINDS;
pub use pooling::component::PlacementPolicy;
pub use pooling::plan::{Assignment, Layer, Machine, Plan, Refusal, Shape, Shortage};
pub use settings::Settings;
pub use speculation::{ApproximateDriver, Speculation};
pub use swarm::component::PiecePicker;
