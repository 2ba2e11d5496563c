//! The speculation mode: drafts where it pays, decodes plainly where it does not.

pub mod acceptance;
mod budget;
pub mod controller;
pub mod cost;
mod drafter;
mod drive;
pub mod memory;
mod race;
mod team;
pub mod tree;

use tightwad_plugin_sdk::{Error, ExactMode, Job, export_exact_mode};

struct Speculation;

impl ExactMode for Speculation {
    const NAME: &'static str = "speculation";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn run(job: &Job) -> Result<(), Error> {
        drive::Drive::new(job).run()
    }
}

export_exact_mode!(Speculation);
