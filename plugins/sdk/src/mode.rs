//! Modes that drive a request token by token: the worlds `exact-mode-plugin` and `approximate-mode-plugin`.

pub use crate::bindings::mode::tightwad::plugin::active_policy::rule as ask_policy;
pub use crate::bindings::mode::tightwad::plugin::decoding::{
    Commit, Draft, DrafterFacts, Error, Job, PendingCommit, PendingDraft, RaceDraft, RaceLimits, TargetFacts,
};
pub use crate::bindings::mode::tightwad::plugin::unverified::{
    Accepted, AuditStats, accept_unverified, get_audit_stats, report_rule,
};

/// A mode that cannot change the output: it commits tokens only through the target.
///
/// ```
/// use tightwad_plugin_sdk::{Error, ExactMode, Job, export_exact_mode};
///
/// /// Verifies the drafts of the first drafter.
/// struct FirstDrafter;
///
/// impl ExactMode for FirstDrafter {
///     const NAME: &'static str = "first-drafter";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn run(job: &Job) -> Result<(), Error> {
///         loop {
///             let draft = job.propose(0, &[], 4, 0.5)?;
///             let tokens: Vec<u32> = draft.proposals.iter().map(|proposal| proposal.token).collect();
///             // An empty list decodes one token.
///             if job.verify(&tokens)?.finished {
///                 return Ok(());
///             }
///         }
///     }
/// }
///
/// export_exact_mode!(FirstDrafter);
/// ```
pub trait ExactMode {
    /// Short name, as logs, reports and metrics show it.
    const NAME: &'static str;
    /// Semantic version of the plugin.
    const VERSION: &'static str;

    /// Drives `job` until a commit reports `finished`.
    ///
    /// # Errors
    ///
    /// Pass on the host's errors. [`Error::Finished`] is the normal end of a job that the client cancelled. For a failure
    /// of the plugin itself use [`Error::Other`]: the log shows its text. After an error the host finishes the request by
    /// plain decoding.
    fn run(job: &Job) -> Result<(), Error>;
}

/// A mode that may also commit tokens without the target.
///
/// ```
/// use tightwad_plugin_sdk::{ApproximateMode, Error, Job, accept_unverified, export_approximate_mode};
///
/// /// Commits the first drafter's tokens. The target decodes if the drafter has none.
/// struct Trusting;
///
/// impl ApproximateMode for Trusting {
///     const NAME: &'static str = "trusting";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn run(job: &Job) -> Result<(), Error> {
///         loop {
///             let draft = job.propose(0, &[], 4, 0.9)?;
///             let tokens: Vec<u32> = draft.proposals.iter().map(|proposal| proposal.token).collect();
///             let accepted = if tokens.is_empty() { None } else { Some(accept_unverified(job, &tokens, false)?) };
///             let finished = match accepted {
///                 Some(accepted) if accepted.count > 0 => accepted.finished,
///                 // No draft, or the request forbids its first token.
///                 _ => job.decode(1)?.finished,
///             };
///             if finished {
///                 return Ok(());
///             }
///         }
///     }
/// }
///
/// export_approximate_mode!(Trusting);
/// ```
pub trait ApproximateMode {
    /// Short name, as logs, reports and metrics show it.
    const NAME: &'static str;
    /// Semantic version of the plugin.
    const VERSION: &'static str;

    /// Drives `job` until a commit or an acceptance reports `finished`.
    ///
    /// # Errors
    ///
    /// As those of [`ExactMode::run`].
    fn run(job: &Job) -> Result<(), Error>;
}

/// The result of a mode's `run`, as the contract has it: the end of a job is not a failure.
#[doc(hidden)]
pub fn run_result(result: Result<(), Error>) -> Result<(), String> {
    match result {
        Ok(()) | Err(Error::Finished) => Ok(()),
        Err(Error::Refused(text)) => Err(format!("refused: {text}")),
        Err(Error::Backend(text)) => Err(format!("the backend failed: {text}")),
        Err(Error::Other(text)) => Err(text),
    }
}

/// Exports a type that implements [`ExactMode`](crate::ExactMode) as this component's mode.
#[macro_export]
macro_rules! export_exact_mode {
    ($mode:ty) => {
        $crate::__export_mode!($mode as ExactMode);
    };
}

/// Exports a type that implements [`ApproximateMode`](crate::ApproximateMode) as this component's mode.
#[macro_export]
macro_rules! export_approximate_mode {
    ($mode:ty) => {
        $crate::__export_mode!($mode as ApproximateMode);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_mode {
    ($mode:ty as $trait:ident) => {
        struct ExportedMode;

        $crate::__export_plugin!(ExportedMode, $mode as $trait);

        impl $crate::bindings::mode::exports::tightwad::plugin::mode::Guest for ExportedMode {
            fn run(job: $crate::Job) -> Result<(), String> {
                $crate::install_panic_hook();
                $crate::run_result(<$mode as $crate::$trait>::run(&job))
            }
        }

        // On other targets a linker rejects the export's name, and unit tests do not need the export.
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::mode::__export_mode_component!(ExportedMode with_types_in $crate::bindings::mode);
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Job) -> Result<(), String> =
            <ExportedMode as $crate::bindings::mode::exports::tightwad::plugin::mode::Guest>::run;
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_job_is_not_a_failure() {
        assert_eq!(run_result(Err(Error::Finished)), Ok(()));
        assert_eq!(run_result(Err(Error::Other("no draft fits".into()))), Err("no draft fits".into()));
    }
}
