//! `tightwad plugin new`: writes a project that builds a plugin, from the examples.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::plugin::templates::{Kind, Language, SDK, SDK_MANIFEST, Template, WIT, template_for};

/// Writes a project that builds a plugin with one command.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// The kind of the plugin.
    kind: Kind,
    /// The plugin's name: lower-case letters, digits and hyphens.
    name: String,
    /// The language of the project.
    #[arg(long, default_value = "rust")]
    lang: Language,
    /// The project's folder. Default: a folder with the plugin's name, in the current one.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl New {
    pub(crate) fn run(self) -> Result<()> {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !self.name.starts_with(|c: char| c.is_ascii_lowercase()) || !self.name.chars().all(is_allowed) {
            bail!(
                "'{}' is not a plugin name. Use lower-case letters, digits and hyphens, and begin with a letter.",
                self.name
            );
        }
        let folder = self.output.clone().unwrap_or_else(|| PathBuf::from(&self.name));
        if folder.exists() {
            bail!(
                "{} exists already. Choose another name, or another folder with --output.",
                folder.display()
            );
        }
        let template = template_for(self.kind, self.lang)?;
        for (file, text) in self.files(&template) {
            let path = folder.join(file);
            let parent = path.parent().unwrap_or(&folder);
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.print_next_steps(&folder, &template);
        Ok(())
    }

    /// Prints the project's folder, and how to build, try and use the plugin.
    fn print_next_steps(&self, folder: &Path, template: &Template) {
        let (rule, test_command, script_line) = match self.kind {
            Kind::Consensus => {
                ("rule", "try it:    tightwad plugin check", "tw.consensus { drafters = ..., target = ...")
            }
            Kind::Gate => {
                ("verdict", "see it:    tightwad plugin inspect", "tw.gate { fleet = ..., reviewer = ...")
            }
        };
        let name = &self.name;
        let (folder_text, build) = (folder.display(), self.replace_names(template, template.build));
        println!("created {folder_text}; the {rule} is in {folder_text}/{}", template.rule);
        println!("build it:  cd {folder_text} && {build}");
        println!("{test_command} {folder_text}/{}", self.replace_names(template, template.component));
        println!("use it:    copy it into a plugins folder as {name}.wasm, and name it in a script:");
        println!("           {script_line}, policy = \"{name}\" }}");
    }

    /// Paths and texts of the project's files.
    fn files(&self, template: &Template) -> Vec<(String, String)> {
        let project_files = template
            .files
            .iter()
            .map(|(file, text)| ((*file).to_owned(), self.replace_names(template, text)));
        let wit = WIT.iter().map(|(file, text)| (format!("wit/{file}"), (*text).to_owned()));
        let mut files: Vec<(String, String)> = project_files.chain(wit).collect();
        if self.lang == Language::Rust {
            files.push(("sdk/Cargo.toml".to_owned(), SDK_MANIFEST.to_owned()));
            // In a project, the SDK's folder is beside the folder `wit`.
            let sdk = SDK
                .iter()
                .map(|(file, text)| (format!("sdk/src/{file}"), text.replace("../../wit", "../wit")));
            files.extend(sdk);
        }
        files
    }

    /// Replaces the example's name and paths in `text` by the project's.
    fn replace_names(&self, template: &Template, text: &str) -> String {
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
