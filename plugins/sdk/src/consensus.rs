//! Writing a consensus policy (the world `voting`) and an approximate mode.

pub use crate::bindings::tightwad::plugin::ballots::{Ballot, Ruling};
pub use crate::bindings::tightwad::plugin::policy::rule as ask_policy;
pub use crate::bindings::tightwad::plugin::unverified::{
    Accepted, Agreement, accept_unverified, at_work, audited,
};
use crate::{Job, Token};

/// The rule of a consensus.
pub trait ConsensusPolicy {
    /// Short name, as scripts and metrics show it.
    const NAME: &'static str;
    /// Semantic version.
    const VERSION: &'static str;

    /// Rules on `ballots` for one place in the output, those that came in time of `drafters` in all.
    fn rule(ballots: &[Ballot], drafters: u32) -> Ruling;
}

/// A mode that drives a request and may commit what its target was not asked about.
pub trait ApproximateMode {
    /// Short name, as scripts and metrics show it.
    const NAME: &'static str;
    /// Semantic version.
    const VERSION: &'static str;

    /// Drives `job` until it says `finished`.
    ///
    /// # Errors
    ///
    /// A text for the host's log: the request is then finished by plain decoding.
    fn run(job: &Job) -> Result<(), String>;
}

impl Ballot {
    /// Its tokens, without their probabilities.
    #[must_use]
    pub fn tokens(&self) -> Vec<Token> {
        self.proposals.iter().map(|proposal| proposal.token).collect()
    }
}

/// Exports a type that implements [`ConsensusPolicy`] as this component's policy.
///
/// ```
/// use tightwad_plugin_sdk::{Ballot, ConsensusPolicy, Proposal, Ruling, export_consensus_policy};
///
/// /// Accepts a token on which all drafters agree.
/// struct Unanimous;
///
/// impl ConsensusPolicy for Unanimous {
///     const NAME: &'static str = "unanimous";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn rule(ballots: &[Ballot], drafters: u32) -> Ruling {
///         let first = ballots.first().map(|ballot| ballot.proposals[0].token);
///         let agrees = |ballot: &Ballot| Some(ballot.proposals[0].token) == first;
///         match first {
///             Some(token) if ballots.len() == drafters as usize && ballots.iter().all(agrees) => {
///                 Ruling::Accept(vec![token])
///             }
///             _ => Ruling::Verify(Vec::new()),
///         }
///     }
/// }
///
/// export_consensus_policy!(Unanimous);
///
/// let ballot = |drafter, token| {
///     Ballot { drafter, weight: 0.5, proposals: vec![Proposal { token, probability: 0.9 }] }
/// };
/// assert!(matches!(Unanimous::rule(&[ballot(0, 7), ballot(1, 7)], 2), Ruling::Accept(tokens) if tokens == [7]));
/// assert!(matches!(Unanimous::rule(&[ballot(0, 7), ballot(1, 8)], 2), Ruling::Verify(_)));
/// ```
#[macro_export]
macro_rules! export_consensus_policy {
    ($policy:ty) => {
        struct ExportedPolicy;

        impl $crate::voting::exports::tightwad::plugin::consensus_policy::Guest for ExportedPolicy {
            fn describe() -> $crate::voting::exports::tightwad::plugin::consensus_policy::Info {
                $crate::voting::exports::tightwad::plugin::consensus_policy::Info {
                    name: <$policy as $crate::ConsensusPolicy>::NAME.into(),
                    version: <$policy as $crate::ConsensusPolicy>::VERSION.into(),
                }
            }

            fn rule(ballots: Vec<$crate::Ballot>, drafters: u32) -> $crate::Ruling {
                $crate::install_panic_hook();
                <$policy as $crate::ConsensusPolicy>::rule(&ballots, drafters)
            }
        }

        // Elsewhere the export's name is no symbol that a linker takes, and unit tests need none.
        #[cfg(target_arch = "wasm32")]
        $crate::__export_voting!(ExportedPolicy with_types_in $crate::voting);
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(Vec<$crate::Ballot>, u32) -> $crate::Ruling =
            <ExportedPolicy as $crate::voting::exports::tightwad::plugin::consensus_policy::Guest>::rule;
    };
}

/// Exports a type that implements [`ApproximateMode`] as this component's mode.
///
/// ```
/// use tightwad_plugin_sdk::{ApproximateMode, Job, accept_unverified, export_approximate_mode, failure};
///
/// /// Commits the first drafter's tokens. The target decodes where the drafter has none.
/// struct Trusting;
///
/// impl ApproximateMode for Trusting {
///     const NAME: &'static str = "trusting";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn run(job: &Job) -> Result<(), String> {
///         let round = || {
///             let draft = job.propose(0, &[], 4, 0.9)?;
///             let tokens: Vec<u32> = draft.proposals.iter().map(|proposal| proposal.token).collect();
///             if tokens.is_empty() {
///                 return job.decode(1).map(|commit| commit.finished);
///             }
///             let audit = false;
///             accept_unverified(job, &tokens, audit).map(|accepted| accepted.finished)
///         };
///         loop {
///             match round() {
///                 Ok(true) => return Ok(()),
///                 Ok(false) => {}
///                 Err(error) => return failure(error).map_or(Ok(()), Err),
///             }
///         }
///     }
/// }
///
/// export_approximate_mode!(Trusting);
/// ```
#[macro_export]
macro_rules! export_approximate_mode {
    ($mode:ty) => {
        struct ExportedMode;

        impl $crate::exports::tightwad::plugin::mode::Guest for ExportedMode {
            fn describe() -> $crate::exports::tightwad::plugin::mode::Info {
                $crate::exports::tightwad::plugin::mode::Info {
                    name: <$mode as $crate::ApproximateMode>::NAME.into(),
                    version: <$mode as $crate::ApproximateMode>::VERSION.into(),
                }
            }

            fn run(job: $crate::Job) -> Result<(), String> {
                $crate::install_panic_hook();
                <$mode as $crate::ApproximateMode>::run(&job)
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
