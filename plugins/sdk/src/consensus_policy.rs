//! Consensus policies: the world `consensus-policy-plugin`.

use crate::TokenId;
pub use crate::bindings::mode::tightwad::plugin::ballots::{Ballot, Proposal, Ruling};

/// The rule of a consensus.
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
///     fn rule(ballots: &[Ballot], drafter_count: u32) -> Ruling {
///         let first = ballots.first().map(|ballot| ballot.proposals[0].token);
///         let agrees = |ballot: &Ballot| Some(ballot.proposals[0].token) == first;
///         match first {
///             Some(token) if ballots.len() == drafter_count as usize && ballots.iter().all(agrees) => {
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
/// assert_eq!(Unanimous::rule(&[ballot(0, 7), ballot(1, 7)], 2), Ruling::Accept(vec![7]));
/// assert_eq!(Unanimous::rule(&[ballot(0, 7), ballot(1, 8)], 2), Ruling::Verify(Vec::new()));
/// ```
pub trait ConsensusPolicy {
    /// Short name, as logs, reports and metrics show it.
    const NAME: &'static str;
    /// Semantic version of the plugin.
    const VERSION: &'static str;

    /// Rules on the ballots for one position of the output. `drafter_count` is the number of the script's drafters, those
    /// without a ballot included.
    fn rule(ballots: &[Ballot], drafter_count: u32) -> Ruling;
}

impl Ballot {
    /// The proposed tokens, without their probabilities.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenId> {
        self.proposals.iter().map(|proposal| proposal.token).collect()
    }
}

/// Exports a type that implements [`ConsensusPolicy`](crate::ConsensusPolicy) as this component's policy.
#[macro_export]
macro_rules! export_consensus_policy {
    ($policy:ty) => {
        struct ExportedPolicy;

        $crate::__export_plugin!(ExportedPolicy, $policy as ConsensusPolicy);

        impl $crate::bindings::consensus_policy::exports::tightwad::plugin::consensus_policy::Guest
            for ExportedPolicy
        {
            fn rule(ballots: Vec<$crate::Ballot>, drafter_count: u32) -> $crate::Ruling {
                $crate::install_panic_hook();
                <$policy as $crate::ConsensusPolicy>::rule(&ballots, drafter_count)
            }
        }

        // On other targets a linker rejects the export's name, and unit tests do not need the export.
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::consensus_policy::__export_consensus_policy!(
            ExportedPolicy with_types_in $crate::bindings::consensus_policy
        );
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(Vec<$crate::Ballot>, u32) -> $crate::Ruling =
            <ExportedPolicy as $crate::bindings::consensus_policy::exports::tightwad::plugin::consensus_policy::Guest>::rule;
    };
}
