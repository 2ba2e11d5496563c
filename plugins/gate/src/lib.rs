//! The gate mode: a fleet writes whole answers, and a reviewer decides about each one. An answer becomes the
//! response, the reviewer continues it from some token, or the reviewer answers itself. Unclear cases are
//! rejections.
//!
//! `driver` makes all calls; the rest is pure. `fleet_order` orders the members, `scores` summarizes the reviewer's
//! probabilities, and `verdict` decides if there is no policy.

pub mod driver;
pub mod fleet_order;
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
        driver::Driver::new(task).run()
    }
}

export_gate_mode!(QualityGate);
