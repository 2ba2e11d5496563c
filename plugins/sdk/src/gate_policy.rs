//! Gate policies: the world `gate-policy-plugin`.

pub use crate::bindings::gate_mode::tightwad::plugin::answers::{
    Candidate, Judgement, Review, TokenScore, Verdict,
};

/// The verdict of a gate.
///
/// ```
/// use tightwad_plugin_sdk::{Candidate, GatePolicy, Judgement, Review, Verdict, export_gate_policy};
///
/// /// Approves a complete answer that the reviewer approves.
/// struct Strict;
///
/// impl GatePolicy for Strict {
///     const NAME: &'static str = "strict";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///     const REVIEW_PROMPT: Option<&'static str> = Some("Is {answer} right for {question}?");
///
///     fn judge(candidate: &Candidate, review: &Review) -> Verdict {
///         let approves = review.judgement == Some(Judgement::Approve);
///         if candidate.complete && approves { Verdict::Approve } else { Verdict::Reject }
///     }
/// }
///
/// export_gate_policy!(Strict);
///
/// let candidate = |complete| {
///     Candidate { member: 0, token_count: 5, character_count: 20, complete, elapsed: 1_000 }
/// };
/// let review = Review { scores: Vec::new(), judgement: Some(Judgement::Approve) };
/// assert_eq!(Strict::judge(&candidate(true), &review), Verdict::Approve);
/// assert_eq!(Strict::judge(&candidate(false), &review), Verdict::Reject);
/// ```
pub trait GatePolicy {
    /// Short name, as logs, reports and metrics show it.
    const NAME: &'static str;
    /// Semantic version of the plugin.
    const VERSION: &'static str;
    /// The prompt by which the reviewer is asked. The host replaces `{question}` and `{answer}` in it. `None`: the
    /// script's prompt.
    const REVIEW_PROMPT: Option<&'static str> = None;

    /// Returns the verdict on a candidate.
    fn judge(candidate: &Candidate, review: &Review) -> Verdict;
}

/// Exports a type that implements [`GatePolicy`](crate::GatePolicy) as this component's policy.
#[macro_export]
macro_rules! export_gate_policy {
    ($policy:ty) => {
        struct ExportedPolicy;

        $crate::__export_plugin!(ExportedPolicy, $policy as GatePolicy);

        impl $crate::bindings::gate_policy::exports::tightwad::plugin::gate_policy::Guest for ExportedPolicy {
            fn review_prompt() -> Option<String> {
                <$policy as $crate::GatePolicy>::REVIEW_PROMPT.map(Into::into)
            }

            fn judge(candidate: $crate::Candidate, review: $crate::Review) -> $crate::Verdict {
                $crate::install_panic_hook();
                <$policy as $crate::GatePolicy>::judge(&candidate, &review)
            }
        }

        // On other targets a linker rejects the export's name, and unit tests do not need the export.
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::gate_policy::__export_gate_policy!(
            ExportedPolicy with_types_in $crate::bindings::gate_policy
        );
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Candidate, $crate::Review) -> $crate::Verdict =
            <ExportedPolicy as $crate::bindings::gate_policy::exports::tightwad::plugin::gate_policy::Guest>::judge;
    };
}
