//! Modes that drive a request by whole answers: the world `gate-mode-plugin`.

use crate::Error;
pub use crate::bindings::gate_mode::tightwad::plugin::reviewing::{Member, ReviewMethods, Task};

/// A mode that drives a request by whole answers.
///
/// ```
/// use tightwad_plugin_sdk::{Error, GateMode, Judgement, Task, export_gate_mode};
///
/// /// Asks the reviewer about the first answer of the fleet.
/// struct FirstAnswer;
///
/// impl GateMode for FirstAnswer {
///     const NAME: &'static str = "first-answer";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn run(task: &Task) -> Result<(), Error> {
///         let members: Vec<u32> = (0..).zip(task.fleet()).map(|(index, _)| index).collect();
///         if task.generate(&members, 1)?.is_empty() || task.ask_reviewer(0)? != Judgement::Approve {
///             return task.reject();
///         }
///         task.approve(0)
///     }
/// }
///
/// export_gate_mode!(FirstAnswer);
/// ```
pub trait GateMode {
    /// Short name, as logs, reports and metrics show it.
    const NAME: &'static str;
    /// Semantic version of the plugin.
    const VERSION: &'static str;

    /// Drives `task` until `approve`, `correct` or `reject` ends it.
    ///
    /// # Errors
    ///
    /// Pass on the host's errors. [`Error::Finished`] is the normal end of a task that the client cancelled. For a failure
    /// of the plugin itself use [`Error::Other`]: the log shows its text. After an error the reviewer answers itself.
    fn run(task: &Task) -> Result<(), Error>;
}

/// Exports a type that implements [`GateMode`](crate::GateMode) as this component's mode.
#[macro_export]
macro_rules! export_gate_mode {
    ($mode:ty) => {
        struct ExportedGateMode;

        $crate::__export_plugin!(ExportedGateMode, $mode as GateMode);

        impl $crate::bindings::gate_mode::exports::tightwad::plugin::gate_mode::Guest for ExportedGateMode {
            fn run(task: $crate::Task) -> Result<(), String> {
                $crate::install_panic_hook();
                $crate::run_result(<$mode as $crate::GateMode>::run(&task))
            }
        }

        // On other targets a linker rejects the export's name, and unit tests do not need the export.
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::gate_mode::__export_gate_mode!(
            ExportedGateMode with_types_in $crate::bindings::gate_mode
        );
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::Task) -> Result<(), String> =
            <ExportedGateMode as $crate::bindings::gate_mode::exports::tightwad::plugin::gate_mode::Guest>::run;
    };
}
