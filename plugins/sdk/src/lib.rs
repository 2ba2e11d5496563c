//! What a tightwad plugin is written with: the bindings of `wit/`, a panic hook that reaches the
//! host's log, and a macro for each world that exports its mode or policy.
//!
//! ```
//! use tightwad_plugin_sdk::{ExactMode, Job, export_exact_mode, failure};
//!
//! struct Plain;
//!
//! impl ExactMode for Plain {
//!     const NAME: &'static str = "plain";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!
//!     fn run(job: &Job) -> Result<(), String> {
//!         loop {
//!             match job.decode(32) {
//!                 Ok(commit) if commit.finished => return Ok(()),
//!                 Ok(_) => {}
//!                 // The end of the job is not a failure.
//!                 Err(error) => return failure(error).map_or(Ok(()), Err),
//!             }
//!         }
//!     }
//! }
//!
//! export_exact_mode!(Plain);
//! ```

#[doc(hidden)]
pub mod bindings;
mod consensus;
pub mod estimate;
mod gate;
#[doc(hidden)]
pub mod gating;
mod hook;
#[doc(hidden)]
pub mod picking;
#[doc(hidden)]
pub mod placement;
mod pooling;
pub mod settings;
pub mod swarm;
#[doc(hidden)]
pub mod verdicts;
#[doc(hidden)]
pub mod voting;

pub use bindings::tightwad::plugin::ballots::{Proposal, Token};
pub use bindings::tightwad::plugin::clock::now;
pub use bindings::tightwad::plugin::decoding::{
    Answer, Commit, Draft, DrafterFacts, Error, Job, PendingCommit, PendingDraft, RaceEnd, TargetFacts,
};
pub use bindings::tightwad::plugin::log::{Level, write as log};
#[doc(hidden)]
pub use bindings::{__export_mode, exports};
pub use consensus::{
    Accepted, Agreement, ApproximateMode, Ballot, ConsensusPolicy, Ruling, accept_unverified, ask_policy,
    at_work, audited,
};
pub use gate::{Candidate, Gate, GatePolicy, Judgement, Member, Review, Task, TokenScore, Verdict, Ways};
#[doc(hidden)]
pub use gating::__export_gate;
#[doc(hidden)]
pub use hook::install as install_panic_hook;
#[doc(hidden)]
pub use picking::__export_picking;
#[doc(hidden)]
pub use placement::__export_placement;
pub use pooling::{Layer, Machine, Plan, Pooling, Refusal, Shape, Share, Shortage};
pub use swarm::Swarm;
#[doc(hidden)]
pub use verdicts::__export_verdicts;
#[doc(hidden)]
pub use voting::__export_voting;

/// A mode that drives a request and cannot change its output.
pub trait ExactMode {
    /// Short name, as scripts and metrics show it.
    const NAME: &'static str;
    /// Semantic version.
    const VERSION: &'static str;

    /// Drives `job` until a commit says `finished`.
    ///
    /// # Errors
    ///
    /// A text for the host's log: the request is then finished by plain decoding.
    fn run(job: &Job) -> Result<(), String>;
}

/// Says what was refused, for a mode's own error. `None`: the job is over, which is no failure.
#[must_use]
pub fn failure(error: Error) -> Option<String> {
    match error {
        Error::Finished => None,
        Error::Refused(text) => Some(format!("refused: {text}")),
        Error::Backend(text) => Some(format!("the backend failed: {text}")),
    }
}

/// Exports a type that implements [`ExactMode`] as this component's mode.
///
/// ```
/// use tightwad_plugin_sdk::{ExactMode, Job, export_exact_mode, failure};
///
/// /// Verifies the drafts of the first drafter.
/// struct Draft;
///
/// impl ExactMode for Draft {
///     const NAME: &'static str = "draft";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn run(job: &Job) -> Result<(), String> {
///         let round = || {
///             let draft = job.propose(0, &[], 4, 0.5)?;
///             let tokens: Vec<u32> = draft.proposals.iter().map(|proposal| proposal.token).collect();
///             job.verify(&tokens)
///         };
///         loop {
///             match round() {
///                 Ok(commit) if commit.finished => return Ok(()),
///                 Ok(_) => {}
///                 Err(error) => return failure(error).map_or(Ok(()), Err),
///             }
///         }
///     }
/// }
///
/// export_exact_mode!(Draft);
/// ```
#[macro_export]
macro_rules! export_exact_mode {
    ($mode:ty) => {
        struct ExportedMode;

        impl $crate::exports::tightwad::plugin::mode::Guest for ExportedMode {
            fn describe() -> $crate::exports::tightwad::plugin::mode::Info {
                $crate::exports::tightwad::plugin::mode::Info {
                    name: <$mode as $crate::ExactMode>::NAME.into(),
                    version: <$mode as $crate::ExactMode>::VERSION.into(),
                }
            }

            fn run(job: $crate::Job) -> Result<(), String> {
                $crate::install_panic_hook();
                <$mode as $crate::ExactMode>::run(&job)
            }
        }

        // Elsewhere the export's name is no symbol that a linker takes, and unit tests need none.
        #[cfg(target_arch = "wasm32")]
        $crate::__export_mode!(ExportedMode with_types_in $crate::bindings);
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Job) -> Result<(), String> =
            <ExportedMode as $crate::exports::tightwad::plugin::mode::Guest>::run;
    };
}
