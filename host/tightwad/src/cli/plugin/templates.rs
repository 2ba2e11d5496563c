//! The texts of the projects that `tightwad plugin new` writes: those of `examples/plugins`.

use anyhow::{Result, bail};

/// A project.
pub(crate) struct Template {
    /// The name that the example has.
    pub example: &'static str,
    /// Paths and texts.
    pub files: &'static [(&'static str, &'static str)],
    /// The file to change.
    pub rule: &'static str,
    /// Builds it.
    pub build: &'static str,
    /// What comes out.
    pub built: &'static str,
}

macro_rules! example {
    ($folder:literal, [$($file:literal),*]) => {
        &[
            (".gitignore", include_str!("../../../../../examples/plugins/.gitignore")),
            $(($file, include_str!(concat!("../../../../../examples/plugins/", $folder, "/", $file)))),*
        ]
    };
}

macro_rules! texts {
    ($folder:literal, [$($file:literal),*]) => {
        &[$(($file, include_str!(concat!("../../../../../", $folder, "/", $file)))),*]
    };
}

/// What builds a project in Rust, and one in JavaScript.
const CARGO: &str = "rustup target add wasm32-unknown-unknown && cargo build --release";
const NPM: &str = "npm install && npm run build";

/// What builds a project in Python for a world.
macro_rules! componentize {
    ($world:literal, $built:literal) => {
        concat!(
            "python3 -m venv .venv && .venv/bin/pip install --quiet componentize-py==0.25.1 && ",
            ".venv/bin/componentize-py -d wit -w ",
            $world,
            " componentize --stub-wasi app -o ",
            $built
        )
    };
}

/// The project of a plugin.
///
/// # Errors
///
/// When there is none in this language.
pub(crate) fn of(kind: Kind, language: Language) -> Result<Template> {
    match kind {
        Kind::Consensus => Ok(consensus(language)),
        Kind::Gate => gate(language),
    }
}

/// The project of a consensus policy.
fn consensus(language: Language) -> Template {
    let example = "two-of-a-kind";
    match language {
        Language::Rust => Template {
            example,
            files: example!(
                "consensus-rust",
                ["Cargo.toml", ".cargo/config.toml", "src/lib.rs", "README.md"]
            ),
            rule: "src/lib.rs",
            build: CARGO,
            built: "target/wasm32-unknown-unknown/release/two_of_a_kind.wasm",
        },
        Language::Python => Template {
            example,
            files: example!("consensus-python", ["app.py", "README.md"]),
            rule: "app.py",
            build: componentize!("voting", "two-of-a-kind.wasm"),
            built: "two-of-a-kind.wasm",
        },
        Language::Javascript => Template {
            example,
            files: example!("consensus-javascript", ["app.js", "package.json", "README.md"]),
            rule: "app.js",
            build: NPM,
            built: "two-of-a-kind.wasm",
        },
        Language::C => Template {
            example,
            files: example!("consensus-c", ["policy.c", "voting.h", "voting.c", "Makefile", "README.md"]),
            rule: "policy.c",
            build: "make",
            built: "two-of-a-kind.wasm",
        },
    }
}

/// The project of a gate policy.
fn gate(language: Language) -> Result<Template> {
    let example = "second-look";
    Ok(match language {
        Language::Rust => Template {
            example,
            files: example!("gate-rust", ["Cargo.toml", ".cargo/config.toml", "src/lib.rs", "README.md"]),
            rule: "src/lib.rs",
            build: CARGO,
            built: "target/wasm32-unknown-unknown/release/second_look.wasm",
        },
        Language::Python => Template {
            example,
            files: example!("gate-python", ["app.py", "README.md"]),
            rule: "app.py",
            build: componentize!("verdicts", "second-look.wasm"),
            built: "second-look.wasm",
        },
        Language::Javascript => Template {
            example,
            files: example!("gate-javascript", ["app.js", "package.json", "README.md"]),
            rule: "app.js",
            build: NPM,
            built: "second-look.wasm",
        },
        Language::C => bail!("a gate policy in C is not to be had; use --lang rust, python or javascript"),
    })
}

/// The contract.
pub(crate) const WIT: &[(&str, &str)] = texts!(
    "wit",
    [
        "answers.wit",
        "ballots.wit",
        "clock.wit",
        "consensus-policy.wit",
        "decoding.wit",
        "gate-policy.wit",
        "gate.wit",
        "log.wit",
        "mode.wit",
        "policy.wit",
        "pooling.wit",
        "reviewing.wit",
        "swarm.wit",
        "unverified.wit",
        "world.wit"
    ]
);

/// The SDK, which is on no registry.
pub(crate) const SDK: &[(&str, &str)] = texts!(
    "plugins/sdk/src",
    [
        "bindings.rs",
        "consensus.rs",
        "estimate.rs",
        "gate.rs",
        "gating.rs",
        "hook.rs",
        "lib.rs",
        "picking.rs",
        "placement.rs",
        "pooling.rs",
        "settings.rs",
        "swarm.rs",
        "verdicts.rs",
        "voting.rs"
    ]
);

/// Its manifest outside this repository.
pub(crate) const SDK_MANIFEST: &str = r#"[package]
name = "tightwad-plugin-sdk"
description = "What a tightwad plugin is written with"
version = "0.1.0"
edition = "2024"
license = "Apache-2.0"

[dependencies]
wit-bindgen = { version = "=0.61.1", default-features = false, features = ["macros", "realloc"] }
"#;

/// What a plugin is for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A rule for `tw.consensus`.
    Consensus,
    /// A verdict for `tw.gate`.
    Gate,
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    Rust,
    Python,
    Javascript,
    C,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Names of the files in a folder of the repository.
    fn files(folder: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_project_gets_the_whole_contract_and_the_whole_sdk() {
        let names = |texts: &[(&str, &str)]| {
            let mut names: Vec<String> = texts.iter().map(|(name, _)| (*name).to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(WIT), files("wit"));
        assert_eq!(names(SDK), files("plugins/sdk/src"));
    }
}
