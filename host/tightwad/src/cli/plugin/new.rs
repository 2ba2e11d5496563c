//! `tightwad plugin new`: a project that builds a plugin, from the examples.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::templates::{EXAMPLE, SDK, SDK_MANIFEST, Template, WIT, of};

/// Writes a project that builds a plugin with one command.
#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// What the plugin is for.
    kind: Kind,
    /// Its name: lower-case letters, digits and hyphens.
    name: String,
    /// The language.
    #[arg(long, default_value = "rust")]
    lang: Language,
    /// Where the project's folder goes; default: here, under the plugin's name.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// A rule for `tw.consensus`.
    Consensus,
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Language {
    Rust,
    Python,
    Javascript,
    C,
}

impl New {
    pub(super) fn run(self) -> Result<()> {
        let Kind::Consensus = self.kind;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !self.name.starts_with(|c: char| c.is_ascii_lowercase()) || !self.name.chars().all(fits) {
            bail!(
                "'{}' is no name for a plugin: it begins with a lower-case letter, and lower-case letters, digits and hyphens follow",
                self.name
            );
        }
        let folder = self.path.clone().unwrap_or_else(|| PathBuf::from(&self.name));
        if folder.exists() {
            bail!("{} is there already; choose another name, or another place with --path", folder.display());
        }
        let template = of(self.lang);
        for (file, text) in self.files(&template) {
            let path = folder.join(file);
            let parent = path.parent().unwrap_or(&folder);
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let (shown, built) = (folder.display(), self.named(template.built));
        println!("made {shown}; the rule is in {shown}/{}", template.rule);
        println!("build it:  cd {shown} && {}", self.named(template.build));
        println!("try it:    tightwad plugin check {shown}/{built}");
        println!("use it:    copy it as {}.wasm into a plugins folder, and name it in a script:", self.name);
        println!("           tw.consensus {{ drafters = ..., target = ..., plugin = \"{}\" }}", self.name);
        Ok(())
    }

    /// Paths and texts of all files.
    fn files(&self, template: &Template) -> Vec<(String, String)> {
        let own = template.files.iter().map(|(file, text)| ((*file).to_owned(), self.named(text)));
        let wit = WIT.iter().map(|(file, text)| (format!("wit/{file}"), (*text).to_owned()));
        let mut files: Vec<(String, String)> = own.chain(wit).collect();
        if self.lang == Language::Rust {
            files.push(("sdk/Cargo.toml".to_owned(), SDK_MANIFEST.to_owned()));
            // The SDK lies beside the contract here, not two folders below it.
            let sdk = SDK
                .iter()
                .map(|(file, text)| (format!("sdk/src/{file}"), text.replace("../../wit", "../wit")));
            files.extend(sdk);
        }
        files
    }

    /// A text of the example as one of this project.
    fn named(&self, text: &str) -> String {
        let text = text
            .replace(EXAMPLE, &self.name)
            .replace(&EXAMPLE.replace('-', "_"), &self.name.replace('-', "_"));
        let text = text.replace("../../../plugins/sdk", "sdk").replace("../../../wit", "wit");
        text.replace("TwoOfAKind", &camel_case(&self.name))
    }
}

fn camel_case(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(word).collect()
}
