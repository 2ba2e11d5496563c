//! The SDK for tightwad plugins in Rust.
//!
//! A plugin implements one trait and exports it with the macro of the same name. The traits correspond to the worlds of
//! the contract (`wit/`), which documents every type and function:
//!
//! | trait | macro | world |
//! |---|---|---|
//! | [`ExactMode`] | [`export_exact_mode!`] | `exact-mode-plugin` |
//! | [`ApproximateMode`] | [`export_approximate_mode!`] | `approximate-mode-plugin` |
//! | [`ConsensusPolicy`] | [`export_consensus_policy!`] | `consensus-policy-plugin` |
//! | [`GateMode`] | [`export_gate_mode!`] | `gate-mode-plugin` |
//! | [`GatePolicy`] | [`export_gate_policy!`] | `gate-policy-plugin` |
//! | [`PlacementPolicy`] | [`export_placement_policy!`] | `placement-policy-plugin` |
//! | [`PiecePicker`] | [`export_piece_picker!`] | `piece-picker-plugin` |
//!
//! The macros also install a panic hook: the host's log and its error report show a panic's message.
//!
//! ```
//! use tightwad_plugin_sdk::{Error, ExactMode, Job, export_exact_mode};
//!
//! /// Decodes without drafts.
//! struct Plain;
//!
//! impl ExactMode for Plain {
//!     const NAME: &'static str = "plain";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!
//!     fn run(job: &Job) -> Result<(), Error> {
//!         while !job.decode(32)?.finished {}
//!         Ok(())
//!     }
//! }
//!
//! export_exact_mode!(Plain);
//! ```

#[doc(hidden)]
pub mod bindings;
mod consensus_policy;
pub mod estimate;
mod export;
mod gate_mode;
mod gate_policy;
mod mode;
mod panic_hook;
pub mod piece_picker;
mod placement_policy;
mod settings;

pub use bindings::mode::tightwad::plugin::clock::now;
pub use bindings::mode::tightwad::plugin::log::{Level, write as log};
pub use bindings::mode::tightwad::plugin::types::{
    CandidateIndex, DrafterIndex, Duration, MachineIndex, MemberIndex, TokenId,
};
pub use consensus_policy::{Ballot, ConsensusPolicy, Proposal, Ruling};
pub use gate_mode::{GateMode, Member, ReviewMethods, Task};
pub use gate_policy::{Candidate, GatePolicy, Judgement, Review, TokenScore, Verdict};
#[doc(hidden)]
pub use mode::run_result;
pub use mode::{
    Accepted, ApproximateMode, AuditStats, Commit, Draft, DrafterFacts, Error, ExactMode, Job, PendingCommit,
    PendingDraft, RaceDraft, RaceLimits, TargetFacts, accept_unverified, ask_policy, get_audit_stats,
    report_rule,
};
#[doc(hidden)]
pub use panic_hook::install as install_panic_hook;
pub use piece_picker::PiecePicker;
pub use placement_policy::{Assignment, Layer, Machine, PlacementPolicy, Plan, Refusal, Shape, Shortage};
pub use settings::{SettingValue, Settings};
