//! `tightwad plugin`.

mod check;
pub(crate) mod inspect_file;
mod new;
mod templates;

use std::path::PathBuf;

use anyhow::Result;
use tightwad_sandbox::{PluginDescription, list};

use crate::app::plugin_folders;
use crate::app::plugin_folders::plugin_json;

/// Creates, checks and lists plugins.
#[derive(Debug, clap::Args)]
pub(crate) struct Plugin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists the plugins that scripts can name: files of the plugins folder, and built-in plugins.
    List(List),
    /// Prints a component's interface, imports, size and digest.
    Inspect(Inspect),
    /// Runs a consensus policy on recorded ballots, in the sandbox.
    Check(check::Check),
    /// Writes a project that builds a plugin.
    New(new::New),
}

#[derive(Debug, clap::Args)]
struct List {
    /// The plugins folder. Default: the user's.
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// The component.
    file: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Plugin {
    pub(crate) async fn run(self) -> Result<()> {
        match self.command {
            Command::List(list) => list.run().await,
            Command::Inspect(inspect) => inspect.run().await,
            Command::Check(check) => check.run().await,
            Command::New(new) => new.run(),
        }
    }
}

impl List {
    async fn run(self) -> Result<()> {
        let listed = list(&*plugin_folders::library(self.plugins_dir.as_deref(), None)?, &[]).await;
        if self.json {
            println!("{:#}", serde_json::Value::from(listed.iter().map(plugin_json).collect::<Vec<_>>()));
            return Ok(());
        }
        for plugin in &listed {
            match plugin {
                Ok(plugin) => println!("{}", line(plugin)),
                Err(error) => println!("{error}"),
            }
        }
        Ok(())
    }
}

fn line(plugin: &PluginDescription) -> String {
    let location = plugin.path.as_ref().map_or("built in".to_owned(), |path| path.display().to_string());
    format!(
        "{:<20} {:<17} {:<24} {}  {location}",
        plugin.name,
        plugin.exports,
        plugin.label,
        &plugin.sha256[..12]
    )
}

impl Inspect {
    async fn run(self) -> Result<()> {
        let (_, plugin) = inspect_file::inspect_file(&self.file).await?;
        if self.json {
            println!("{:#}", serde_json::to_value(&plugin)?);
            return Ok(());
        }
        let kind = if plugin.exact { "exact: it can be slow, never wrong" } else { "approximate" };
        println!("{}: {}", self.file.display(), plugin.label);
        println!("  exports  {} ({kind})", plugin.exports);
        for import in &plugin.imports {
            let note =
                if import.starts_with("wasi:") { " (empty: no files, sockets, environment)" } else { "" };
            println!("  imports  {import}{note}");
        }
        println!("  bytes    {}", plugin.bytes);
        println!("  sha256   {}", plugin.sha256);
        Ok(())
    }
}
