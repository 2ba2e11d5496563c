//! `cargo xtask demo`: from a fresh checkout to a streamed answer.

use std::net::TcpStream;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, root, run, target};
use crate::{models, tools};

const QUESTION: &str = "Repeat this list twice, word for word: red apples, green pears, yellow bananas, \
blue plums, black cherries, white grapes.";

/// Builds the host, serves a model and asks it a question.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Exits after the answer.
    #[arg(long)]
    once: bool,
    /// Models: smollm2, or qwen (1.5B, with 0.5B as drafter).
    #[arg(long, default_value = "smollm2", value_parser = ["smollm2", "qwen"])]
    models: String,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8088")]
    listen: String,
}

impl Demo {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let tools = tools::install()?;
        let (script, model, files): (_, _, &[&str]) = match self.models.as_str() {
            "qwen" => ("scripts/speculation-qwen.lua", "qwen2.5-coder", &["qwen-1.5b", "qwen-0.5b"]),
            _ => ("scripts/speculation.lua", "smollm2", &["smollm2"]),
        };
        for file in files {
            models::get(file)?;
        }
        eprintln!("building. The first build takes 10 to 20 minutes.");
        run(tools.for_command(cargo().args(["build", "--package", "tightwad"])))?;
        if TcpStream::connect(&self.listen).is_ok() {
            bail!("another program listens on {}. Choose another address with --listen.", self.listen);
        }
        let binary = target().join("debug/tightwad");
        let mut server =
            Server::start(Command::new(&binary).args(["run", script, "--listen", &self.listen]))?;
        server.wait_until_ready(&self.listen)?;
        eprintln!("\nQ: {QUESTION}\nA:");
        run(Command::new(&binary)
            .args(["chat", "--url", &format!("http://{}", self.listen), "--model", model])
            .args(["--max-tokens", "160", "--prompt", QUESTION]))?;
        if self.once {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("\nserving at http://{}/v1 until you press Ctrl-C", self.listen);
        server.0.wait()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A server process. Dropping the value kills the process.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Result<Self> {
        // The script names models relative to its folder.
        Ok(Self(command.current_dir(root()).spawn().context("cannot start the server")?))
    }

    fn wait_until_ready(&mut self, address: &str) -> Result<()> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                bail!("the server ended ({status})");
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            let (_sender, receiver) = std::sync::mpsc::channel::<()>();
            let _ = receiver.recv_timeout(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
