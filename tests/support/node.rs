//! A running `tightwad node`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{BINARY, Process, environment};

/// Ended by its process id when dropped; can be killed and started again at the same address.
pub struct Node {
    pub process: Option<Process>,
    pub address: SocketAddr,
    models: Vec<(String, PathBuf)>,
    more: Vec<String>,
}

impl Node {
    /// Lends models by name on a free port of loopback.
    pub fn start(models: &[(&str, &Path)], more: &[&str]) -> Self {
        let models = models.iter().map(|(name, path)| ((*name).to_owned(), path.to_path_buf())).collect();
        let more = more.iter().map(|&one| one.to_owned()).collect();
        let mut node = Self { process: None, address: "127.0.0.1:0".parse().unwrap(), models, more };
        node.again();
        node
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        environment(&mut command).args(["node", "--quiet", "--listen", &self.address.to_string()]);
        for (name, path) in &self.models {
            command.arg("--model").arg(format!("{name}={}", path.display()));
        }
        command.args(&self.more);
        command
    }

    /// Starts it again, where it was.
    pub fn again(&mut self) {
        let process = Process::start(&mut self.command());
        self.address = process.address.parse().unwrap();
        self.process = Some(process);
    }

    /// Starts it again where it was, with another file under the first model's name.
    pub fn again_with(&mut self, path: &Path) {
        let own = std::mem::replace(&mut self.models[0].1, path.to_path_buf());
        self.again();
        self.models[0].1 = own;
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        self.process.take();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
