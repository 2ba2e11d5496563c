//! Processes of this program on loopback, for benchmarks that need a whole host, node or worker.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::contest::ChildProcess;

/// A running process of this program. Dropping the value kills the process.
pub(crate) struct LocalProcess {
    child: Option<ChildProcess>,
    /// The address that the process reports. It stays the same after a restart.
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    log: PathBuf,
}

impl LocalProcess {
    /// Starts this program with `arguments` and `--listen`, on a free port of loopback. Its standard error goes to the
    /// file `log`.
    pub(crate) fn start(arguments: &[&str], log: &Path) -> Result<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { child: None, address, arguments, log: log.to_owned() };
        process.restart()?;
        Ok(process)
    }

    /// Starts the process again, at the same address.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&self.arguments).args(["--listen", &self.address.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take();
        self.child = Some(ChildProcess(child));
        let mut lines = BufReader::new(stderr.context("the process has no standard error")?).lines();
        let mut log = File::options().create(true).append(true).open(&self.log)?;
        for line in lines.by_ref() {
            let line = line?;
            writeln!(log, "{line}")?;
            let address = line.strip_prefix("tightwad ").and_then(|line| line.split("at http://").nth(1));
            if let Some(address) = address {
                self.address = address.trim_end_matches("/v1").parse()?;
                std::thread::spawn(move || {
                    for line in lines.map_while(Result::ok) {
                        // A full disk must not stop the process.
                        let _ = writeln!(log, "{line}");
                    }
                });
                return Ok(());
            }
        }
        bail!("`{}` did not start. See {}.", self.arguments.join(" "), self.log.display())
    }

    /// Kills the process without notice, like a power cut.
    pub(crate) fn kill(&mut self) {
        self.child = None;
    }

    /// The process id; `None`: the process was killed.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.0.id())
    }

    /// The URL of `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}
