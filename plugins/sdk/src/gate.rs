//! Writing a gate policy (the world `verdicts`) and a gate.

pub use crate::gating::tightwad::plugin::answers::{Candidate, Judgement, Review, TokenScore, Verdict};
pub use crate::gating::tightwad::plugin::reviewing::{Member, Task, Ways};

/// The verdict of a gate.
pub trait GatePolicy {
    /// Short name, as scripts and metrics show it.
    const NAME: &'static str;
    /// Semantic version.
    const VERSION: &'static str;
    /// What the reviewer is asked, `{question}` and `{answer}` in it filled in; `None`: what the script says.
    const REVIEW_PROMPT: Option<&'static str> = None;

    /// The verdict on a candidate.
    fn judge(candidate: &Candidate, review: &Review) -> Verdict;
}

/// A mode that drives a request by whole answers.
pub trait Gate {
    /// Short name, as scripts and metrics show it.
    const NAME: &'static str;
    /// Semantic version.
    const VERSION: &'static str;

    /// Drives `task` until it is ended.
    ///
    /// # Errors
    ///
    /// A text for the host's log: the reviewer then answers itself.
    fn run(task: &Task) -> Result<(), String>;
}

/// Exports a type that implements [`GatePolicy`] as this component's policy.
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
///         if candidate.whole && approves { Verdict::Approve } else { Verdict::Reject }
///     }
/// }
///
/// export_gate_policy!(Strict);
///
/// let candidate = |whole| Candidate { member: 0, tokens: 5, characters: 20, whole, nanoseconds: 1_000 };
/// let review = Review { scores: Vec::new(), judgement: Some(Judgement::Approve) };
/// assert!(matches!(Strict::judge(&candidate(true), &review), Verdict::Approve));
/// assert!(matches!(Strict::judge(&candidate(false), &review), Verdict::Reject));
/// ```
#[macro_export]
macro_rules! export_gate_policy {
    ($policy:ty) => {
        struct ExportedPolicy;

        impl $crate::verdicts::exports::tightwad::plugin::gate_policy::Guest for ExportedPolicy {
            fn describe() -> $crate::verdicts::exports::tightwad::plugin::gate_policy::Info {
                $crate::verdicts::exports::tightwad::plugin::gate_policy::Info {
                    name: <$policy as $crate::GatePolicy>::NAME.into(),
                    version: <$policy as $crate::GatePolicy>::VERSION.into(),
                }
            }

            fn review_prompt() -> Option<String> {
                <$policy as $crate::GatePolicy>::REVIEW_PROMPT.map(Into::into)
            }

            fn judge(candidate: $crate::Candidate, review: $crate::Review) -> $crate::Verdict {
                $crate::install_panic_hook();
                <$policy as $crate::GatePolicy>::judge(&candidate, &review)
            }
        }

        // Elsewhere the export's name is no symbol that a linker takes, and unit tests need none.
        #[cfg(target_arch = "wasm32")]
        $crate::__export_verdicts!(ExportedPolicy with_types_in $crate::verdicts);
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Candidate, $crate::Review) -> $crate::Verdict =
            <ExportedPolicy as $crate::verdicts::exports::tightwad::plugin::gate_policy::Guest>::judge;
    };
}

/// Exports a type that implements [`Gate`] as this component's mode.
///
/// ```
/// use tightwad_plugin_sdk::{Gate, Judgement, Task, export_gate, failure};
///
/// /// Asks the reviewer about the first answer of the fleet.
/// struct First;
///
/// impl Gate for First {
///     const NAME: &'static str = "first";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn run(task: &Task) -> Result<(), String> {
///         let review = || {
///             let members: Vec<u32> = (0..).zip(task.fleet()).map(|(index, _)| index).collect();
///             if task.write(&members, 1)?.is_empty() || task.ask(0)? != Judgement::Approve {
///                 return task.rewrite();
///             }
///             task.approve(0)
///         };
///         review().or_else(|error| failure(error).map_or(Ok(()), Err))
///     }
/// }
///
/// export_gate!(First);
/// ```
#[macro_export]
macro_rules! export_gate {
    ($gate:ty) => {
        struct ExportedGate;

        impl $crate::gating::exports::tightwad::plugin::gate::Guest for ExportedGate {
            fn describe() -> $crate::gating::exports::tightwad::plugin::gate::Info {
                $crate::gating::exports::tightwad::plugin::gate::Info {
                    name: <$gate as $crate::Gate>::NAME.into(),
                    version: <$gate as $crate::Gate>::VERSION.into(),
                }
            }

            fn run(task: $crate::Task) -> Result<(), String> {
                $crate::install_panic_hook();
                <$gate as $crate::Gate>::run(&task)
            }
        }

        // Elsewhere the export's name is no symbol that a linker takes, and unit tests need none.
        #[cfg(target_arch = "wasm32")]
        $crate::__export_gate!(ExportedGate with_types_in $crate::gating);
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Task) -> Result<(), String> =
            <ExportedGate as $crate::gating::exports::tightwad::plugin::gate::Guest>::run;
    };
}
