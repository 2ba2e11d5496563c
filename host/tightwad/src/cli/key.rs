//! `tightwad key`: makes API keys for clients of a host.

use anyhow::Result;
use tightwad_core::KeyName;
use tightwad_serve::NewKey;

/// Makes API keys for clients of a host.
#[derive(Debug, clap::Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints a new key, and its line for `keys` in tw.serve. The key is shown once and kept nowhere.
    New {
        /// Name of the key in logs, status and metrics.
        #[arg(default_value = "client")]
        name: KeyName,
    },
}

impl Key {
    pub(crate) fn run(self) -> Result<()> {
        let Command::New { name } = self.command;
        let key = NewKey::generate();
        println!("{}\n{}", key.secret(), key.script_line(&name));
        eprintln!("Give the first line to the client. Add the second line to `keys` in tw.serve.");
        Ok(())
    }
}
