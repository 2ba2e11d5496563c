//! The projects that `tightwad plugin new` writes. The texts come from `examples/plugins`.

use anyhow::{Result, bail};

/// A project.
pub(crate) struct Template {
    /// The name of the example.
    pub example: &'static str,
    /// Paths and texts of the project's files.
    pub files: &'static [(&'static str, &'static str)],
    /// The file with the rule or the verdict. Authors change this file.
    pub rule: &'static str,
    /// The command that builds the project.
    pub build: &'static str,
    /// The path of the built component.
    pub component: &'static str,
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

/// The command that builds a project in Rust.
const CARGO: &str = "rustup target add wasm32-unknown-unknown && cargo build --release";
/// The command that builds a project in JavaScript.
const NPM: &str = "npm install && npm run build";

/// The command that builds a project in Python for a world.
macro_rules! componentize {
    ($world:literal, $component:literal) => {
        concat!(
            "python3 -m venv .venv && .venv/bin/pip install --quiet componentize-py==0.25.1 && ",
            ".venv/bin/componentize-py -d wit -w ",
            $world,
            " componentize --stub-wasi app -o ",
            $component
        )
    };
}

/// The project of a plugin.
///
/// # Errors
///
/// There is no project in this language.
pub(crate) fn template_for(kind: Kind, language: Language) -> Result<Template> {
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
            component: "target/wasm32-unknown-unknown/release/two_of_a_kind.wasm",
        },
        Language::Python => Template {
            example,
            files: example!("consensus-python", ["app.py", "README.md"]),
            rule: "app.py",
            build: componentize!("consensus-policy-plugin", "two-of-a-kind.wasm"),
            component: "two-of-a-kind.wasm",
        },
        Language::Javascript => Template {
            example,
            files: example!("consensus-javascript", ["app.js", "package.json", "README.md"]),
            rule: "app.js",
            build: NPM,
            component: "two-of-a-kind.wasm",
        },
        Language::C => Template {
            example,
            files: example!(
                "consensus-c",
                ["policy.c", "consensus_policy.h", "consensus_policy.c", "Makefile", "README.md"]
            ),
            rule: "policy.c",
            build: "make",
            component: "two-of-a-kind.wasm",
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
            component: "target/wasm32-unknown-unknown/release/second_look.wasm",
        },
        Language::Python => Template {
            example,
            files: example!("gate-python", ["app.py", "README.md"]),
            rule: "app.py",
            build: componentize!("gate-policy-plugin", "second-look.wasm"),
            component: "second-look.wasm",
        },
        Language::Javascript => Template {
            example,
            files: example!("gate-javascript", ["app.js", "package.json", "README.md"]),
            rule: "app.js",
            build: NPM,
            component: "second-look.wasm",
        },
        Language::C => {
            bail!("there is no template of a gate policy in C. Use --lang rust, python or javascript.")
        }
    })
}

/// The WIT files of the contract.
pub(crate) const WIT: &[(&str, &str)] = texts!(
    "wit",
    [
        "active-policy.wit",
        "answers.wit",
        "ballots.wit",
        "clock.wit",
        "consensus-policy.wit",
        "decoding.wit",
        "gate-mode.wit",
        "gate-policy.wit",
        "log.wit",
        "mode.wit",
        "piece-picker.wit",
        "placement-policy.wit",
        "plugin.wit",
        "reviewing.wit",
        "types.wit",
        "unverified.wit",
        "world.wit"
    ]
);

/// The source files of the SDK. No registry publishes the SDK yet, so a project contains a copy.
pub(crate) const SDK: &[(&str, &str)] = texts!(
    "plugins/sdk/src",
    [
        "bindings.rs",
        "consensus_policy.rs",
        "estimate.rs",
        "export.rs",
        "gate_mode.rs",
        "gate_policy.rs",
        "lib.rs",
        "mode.rs",
        "panic_hook.rs",
        "piece_picker.rs",
        "placement_policy.rs",
        "settings.rs"
    ]
);

/// The SDK's manifest in a project.
pub(crate) const SDK_MANIFEST: &str = r#"[package]
name = "tightwad-plugin-sdk"
description = "The SDK for tightwad plugins in Rust"
version = "0.1.0"
edition = "2024"
license = "Apache-2.0"

[dependencies]
wit-bindgen = { version = "=0.61.1", default-features = false, features = ["macros", "realloc"] }
"#;

/// The kind of a plugin.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A consensus policy: the rule of `tw.consensus`.
    Consensus,
    /// A gate policy: the verdict of `tw.gate`.
    Gate,
}

/// The language of a plugin.
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

    /// The names of the files with `extension` in a folder of the repository.
    fn files(folder: &str, extension: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name.ends_with(extension));
        names.sort();
        names
    }

    #[test]
    fn project_contains_the_whole_contract_and_the_whole_sdk() {
        let names = |texts: &[(&str, &str)]| {
            let mut names: Vec<String> = texts.iter().map(|(name, _)| (*name).to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(WIT), files("wit", ".wit"));
        assert_eq!(names(SDK), files("plugins/sdk/src", ".rs"));
    }
}
