//! The gate mode: a fleet writes whole answers, and a reviewer's word decides which of them are passed on,
//! which it goes on with from some place, and which it replaces by its own. Whatever is unclear is a rejection.
//!
//! `drive` makes calls, everything else is pure: `choice` says who writes, `scores` reads the reviewer's
//! probabilities, and `verdict` says what becomes of an answer, where no policy plugin does.

pub mod choice;
pub mod drive;
pub mod host;
pub mod scores;
pub mod settings;
pub mod verdict;

use tightwad_plugin_sdk::{Error, GateMode, Task, export_gate_mode};

struct QualityGate;

impl GateMode for QualityGate {
    const NAME: &'static str = "gate";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn run(task: &Task) -> Result<(), Error> {
        drive::Drive::new(task).run()
    }
}

export_gate_mode!(QualityGate);
