//! Set-up, models, tests, benchmarks: `cargo xtask help` lists them.

mod book;
mod check;
mod components;
mod contract;
mod cycles;
mod demo;
mod fuzz;
mod ignored;
mod lua_reference;
mod models;
mod rust_src;
mod shell;
mod structure;
mod suite;
mod tools;
mod words;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tightwad_zoo::{Kind, Zoo};

/// Set-up, models, tests, benchmarks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Builds the host, serves a model and asks it a question.
    Demo(demo::Demo),
    /// Checks format, structure, words and the book. Lints and tests the crates without llama.cpp and wasmtime.
    Check,
    /// Runs all checks and tests.
    Test(suite::Test),
    /// Installs missing build tools: cmake and libclang.
    Setup,
    /// Downloads models into `models/`.
    Models {
        /// Names: smollm2, qwen-0.5b, qwen-1.5b, gemma.
        #[arg(default_values_t = vec!["smollm2".to_owned()])]
        names: Vec<String>,
    },
    /// Writes the generated pages of the book: Lua, the command line and the metrics.
    Book,
    /// Generates the small test models of many architectures, and prints their paths.
    Zoo {
        /// Also generates a model of 700 MB whose draft heads are wrong after this share of tokens, in percent.
        /// Repeatable.
        #[arg(long, value_name = "DAMAGE_PERCENT")]
        large: Vec<u8>,
    },
    /// Runs the fuzz targets of `host/fuzz` under libFuzzer.
    Fuzz(fuzz::Fuzz),
    /// Builds the components in `plugins/dist`.
    Components {
        /// Builds them in another folder and compares every byte.
        #[arg(long)]
        check: bool,
    },
    /// Builds the release profile and runs `tightwad bench` with the given arguments.
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
        Command::Setup => drop(tools::install()?),
        Command::Models { names } => {
            for name in names {
                println!("{}", models::get(&name)?.display());
            }
        }
        Command::Book => book::write()?,
        Command::Zoo { large } => {
            let zoo = Zoo::new(&models::get("smollm2")?, &models::folder().join("zoo"));
            let large = large.into_iter().map(|damage_percent| Kind::LargeConstructed { damage_percent });
            for kind in Kind::ARCHITECTURES.into_iter().chain(Kind::PRE_TOKENIZERS).chain(large) {
                println!("{}", zoo.model(kind)?.display());
            }
        }
        Command::Fuzz(fuzz) => fuzz.run()?,
        Command::Components { check: true } => components::check()?,
        Command::Components { check: false } => components::build()?,
        Command::Bench { arguments } => suite::bench(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
