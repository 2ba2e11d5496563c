//! The plugin host: components that decide, under limits, through the functions of `wit/`.
//!
//! One instance serves one request, or one question to a policy. Whatever a component does, the
//! request's [`Job`] comes back from [`Plugin::run`], so that the host can finish it by plain decoding.

mod at_work;
mod bindings;
mod clock;
mod component;
mod contract;
mod counts;
mod decoding;
mod engine;
mod error;
mod gate;
mod gate_policy;
mod health;
mod inspect;
mod job;
mod judgement;
mod library;
mod limits;
mod linked;
mod log;
mod passing;
mod placement;
mod policy;
mod race;
mod review;
mod review_cache;
mod reviewing;
mod seat;
mod skipping;
mod slot;
mod state;
mod store;
mod swarm;
mod unverified;

pub use at_work::{OnFailure, PolicyAtWork, PolicyOfRequest};
pub use bindings::tightwad::plugin::ballots::{Ballot, Proposal as Vote, Ruling};
pub use component::Plugin;
pub use contract::{Compiled, Kind};
pub use counts::CallCounts;
pub use engine::PluginEngine;
pub use error::PluginError;
pub use gate::GatePlugin;
pub use gate_policy::GatePolicyPlugin;
pub use inspect::{Inspected, Listed, inspect};
pub use job::{Job, Settled, Skipped, Tally};
pub use library::{Library, Loaded};
pub use limits::Limits;
pub use linked::Identity;
pub use placement::PlacementPlugin;
pub use policy::PolicyPlugin;
pub use review::{Ending, MemberCounts, OnReviewerLost, ReviewTally, ReviewTask, TaskSpec, Ways};
pub use review_cache::{CacheSpec, ReviewCache};
pub use seat::Raced;
pub use skipping::{Agreement, RuleAtWork, Skipping};
pub use slot::Slot;
pub use swarm::{ComponentPicker, SwarmPlugin};
