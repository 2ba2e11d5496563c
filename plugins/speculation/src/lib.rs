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

use tightwad_plugin_sdk::{ExactMode, Job, export_exact_mode, failure};

struct Speculation;

impl ExactMode for Speculation {
    const NAME: &'static str = "speculation";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn run(job: &Job) -> Result<(), String> {
        drive::Drive::new(job).run().or_else(|error| failure(error).map_or(Ok(()), Err))
    }
}

export_exact_mode!(Speculation);
