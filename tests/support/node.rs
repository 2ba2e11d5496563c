//! A running `tightwad node`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{BINARY, Process, set_environment};

/// A node that a test can kill and restart at the same address. Dropping it kills the process by its id.
pub struct Node {
    pub process: Option<Process>,
    pub address: SocketAddr,
    models: Vec<(String, PathBuf)>,
    arguments: Vec<String>,
}

impl Node {
    /// Lends `models` (names and files) on a free port of loopback.
    pub fn start(models: &[(&str, &Path)], arguments: &[&str]) -> Self {
        let models = models.iter().map(|(name, path)| ((*name).to_owned(), path.to_path_buf())).collect();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut node = Self { process: None, address: "127.0.0.1:0".parse().unwrap(), models, arguments };
        node.restart();
        node
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        set_environment(&mut command).args(["node", "--no-announce", "--listen", &self.address.to_string()]);
        for (name, path) in &self.models {
            command.arg("--model").arg(format!("{name}={}", path.display()));
        }
        command.args(&self.arguments);
        command
    }

    /// Starts the node again at its address.
    pub fn restart(&mut self) {
        let process = Process::start(&mut self.command());
        self.address = process.address.parse().unwrap();
        self.process = Some(process);
    }

    /// Starts the node again at its address, with another file under the first model's name.
    pub fn restart_with_model(&mut self, path: &Path) {
        let original = std::mem::replace(&mut self.models[0].1, path.to_path_buf());
        self.restart();
        self.models[0].1 = original;
    }

    /// Kills the process, as a power cut would.
    pub fn kill(&mut self) {
        self.process.take();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
