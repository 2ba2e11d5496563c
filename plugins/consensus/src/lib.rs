//! The consensus mode: drafters vote on what comes next, and the target is asked only where their rule does
//! not settle it. Approximate: what a rule accepts is not what the target would have generated for certain.
//!
//! `drive` and `block` make calls, everything else is pure: `rules` rule on ballots, `hedge` and `accuracy`
//! say what a drafter's word is worth, `deadline` how long one waits for it, `paths` what of it the target
//! looks at, `level` when audits make the rule a tighter one, and `memory` hands all this on.

pub mod accuracy;
pub mod audits;
pub mod ballots;
pub mod deadline;
pub mod drive;
pub mod hedge;
pub mod host;
pub mod level;
pub mod memory;
pub mod paths;
pub mod rules;
pub mod settings;

use tightwad_plugin_sdk::{ApproximateMode, Error, Job, export_approximate_mode};

struct Consensus;

impl ApproximateMode for Consensus {
    const NAME: &'static str = "consensus";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn run(job: &Job) -> Result<(), Error> {
        drive::Drive::new(job).run()
    }
}

export_approximate_mode!(Consensus);
