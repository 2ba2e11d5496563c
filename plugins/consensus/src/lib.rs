//! The consensus mode: drafters vote on the next tokens, and the target decides where their rule does not. It is
//! approximate: the target may disagree with a token that the rule accepted.
//!
//! `driver` makes all calls; the rest is pure. `rules` rules on ballots, `hedge` and `accuracy` weigh drafters,
//! `deadline` limits races, and `paths` chooses the paths to verify. `strictness` lets audits make the rule
//! stricter, and `state` hands the results on to later requests.

pub mod accuracy;
pub mod audit_sampler;
pub mod ballots;
pub mod deadline;
pub mod driver;
pub mod hedge;
pub mod host;
pub mod paths;
pub mod rules;
pub mod settings;
pub mod state;
pub mod strictness;

use tightwad_plugin_sdk::{ApproximateMode, Error, Job, export_approximate_mode};

struct Consensus;

impl ApproximateMode for Consensus {
    const NAME: &'static str = "consensus";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn run(job: &Job) -> Result<(), Error> {
        driver::Driver::new(job).run()
    }
}

export_approximate_mode!(Consensus);
