//! The speculation mode: it verifies drafts where they pay, and decodes without drafts elsewhere.

pub mod acceptance;
mod budget;
pub mod controller;
pub mod cost;
mod drafter;
mod driver;
mod ensemble;
mod race;
pub mod state;
pub mod tree;

use tightwad_plugin_sdk::{Error, ExactMode, Job, export_exact_mode};

struct Speculation;

impl ExactMode for Speculation {
    const NAME: &'static str = "speculation";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn run(job: &Job) -> Result<(), Error> {
        driver::Driver::new(job).run()
    }
}

export_exact_mode!(Speculation);
