//! Set-up, models, tests, benchmarks: `cargo xtask help` lists them.

mod check;
mod components;
mod cycles;
mod demo;
mod ignored;
mod models;
mod rust_src;
mod shell;
mod structure;
mod suite;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tightwad_zoo::{Kind, Zoo};

/// Set-up, models, tests, benchmarks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Builds everything, serves a model and asks it something.
    Demo(demo::Demo),
    /// Formats, lints and unit tests of the crates that need neither llama.cpp nor wasmtime.
    Check,
    /// Runs everything that must pass.
    Test(suite::Test),
    /// Gets what is missing to build: cmake, libclang.
    Setup,
    /// Downloads models into `models/`.
    Models {
        /// smollm2, qwen-0.5b, qwen-1.5b, gemma.
        #[arg(default_values_t = vec!["smollm2".to_owned()])]
        names: Vec<String>,
    },
    /// Makes the small models of many architectures, and prints their files.
    Zoo,
    /// Builds the components in `plugins/dist`.
    Components {
        /// Builds them elsewhere and compares every byte.
        #[arg(long)]
        check: bool,
    },
    /// Compares speculation with plain decoding; arguments go to `tightwad bench`.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(demo) => return demo.run(),
        Command::Check => check::check()?,
        Command::Test(test) => test.run()?,
        Command::Setup => drop(tools::ready()?),
        Command::Models { names } => {
            for name in names {
                println!("{}", models::get(&name)?.display());
            }
        }
        Command::Zoo => {
            let zoo = Zoo::new(&models::get("smollm2")?, &models::folder().join("zoo"));
            for kind in Kind::ARCHITECTURES.iter().chain(&Kind::PRE_TOKENIZERS) {
                println!("{}", zoo.model(*kind)?.display());
            }
        }
        Command::Components { check: true } => components::check()?,
        Command::Components { check: false } => components::build()?,
        Command::Bench { arguments } => suite::bench(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
