//! `tightwad plugin new`: a project that builds a plugin, from the examples.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::plugin::templates::{Kind, Language, SDK, SDK_MANIFEST, Template, WIT, of};

/// Writes a project that builds a plugin with one command.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
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

impl New {
    pub(crate) fn run(self) -> Result<()> {
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
        let template = of(self.kind, self.lang)?;
        for (file, text) in self.files(&template) {
            let path = folder.join(file);
            let parent = path.parent().unwrap_or(&folder);
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.tell(&folder, &template);
        Ok(())
    }

    /// Says what was made, and what to do with it.
    fn tell(&self, folder: &Path, template: &Template) {
        let (rule, attempt, call) = match self.kind {
            Kind::Consensus => {
                ("rule", "try it:    tightwad plugin check", "tw.consensus { drafters = ..., target = ...")
            }
            Kind::Gate => {
                ("verdict", "see it:    tightwad plugin inspect", "tw.gate { fleet = ..., reviewer = ...")
            }
        };
        let name = &self.name;
        let (shown, build) = (folder.display(), self.named(template, template.build));
        println!("made {shown}; the {rule} is in {shown}/{}", template.rule);
        println!("build it:  cd {shown} && {build}");
        println!("{attempt} {shown}/{}", self.named(template, template.built));
        println!("use it:    copy it as {name}.wasm into a plugins folder, and name it in a script:");
        println!("           {call}, plugin = \"{name}\" }}");
    }

    /// Paths and texts of all files.
    fn files(&self, template: &Template) -> Vec<(String, String)> {
        let own = template.files.iter().map(|(file, text)| ((*file).to_owned(), self.named(template, text)));
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
    fn named(&self, template: &Template, text: &str) -> String {
        let (example, name) = (template.example, &self.name);
        let text = text.replace(example, name).replace(&example.replace('-', "_"), &name.replace('-', "_"));
        let text = text.replace("../../../plugins/sdk", "sdk").replace("../../../wit", "wit");
        text.replace(&camel_case(example), &camel_case(name))
    }
}

fn camel_case(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(word).collect()
}
