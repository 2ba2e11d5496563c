//! The process that holds a pooled model: llama.cpp ends it when a worker is lost.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tightwad_core::{PoolSpec, Token};
use tightwad_engine::pool::PoolConfig;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

/// What the process says on its standard output, a line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PoolSaid {
    /// How much is loaded, from 0 to 1.
    Loading(f32),
    /// Ready, at this address.
    Listening(SocketAddr),
    /// It cannot be loaded, because of this.
    Failed(String),
}

/// Why the process of a pool reports nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It ended.
    #[error("the process of the pool ended: {0}")]
    Ended(ExitStatus),
    /// It cannot be waited for.
    #[error("the process of the pool is lost: {0}")]
    Lost(#[source] std::io::Error),
}

/// The process; it ends when dropped.
pub(crate) struct Child {
    process: tokio::process::Child,
    said: Lines<BufReader<ChildStdout>>,
    // Waiting for a process closes its standard input, which would end it.
    _input: Option<ChildStdin>,
    /// What it must be told to do anything.
    pub(crate) token: Token,
}

impl Child {
    pub(crate) fn start(spec: &PoolSpec, context: u32, config: &PoolConfig) -> std::io::Result<Self> {
        let token = Token::new(&format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)));
        let token = token.map_err(std::io::Error::other)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", "--quiet", "--listen", "127.0.0.1:0", "--idle", "3600"]);
        command.args(["--sessions-a-client", "256", "--slots", &spec.slots.to_string()]);
        command.arg("--model").arg(format!("{}={}", spec.name, spec.path.display()));
        command.arg("--pool").arg(serde_json::to_string(config)?);
        let numbers = [("--context", Some(context)), ("--queue", spec.queue), ("--threads", spec.threads)];
        for (name, value) in numbers {
            if let Some(value) = value {
                command.args([name, &value.to_string()]);
            }
        }
        // Other users see arguments, not the environment.
        command.env("TIGHTWAD_TOKEN", token.secret());
        // Looking for a debugger at every lost worker takes seconds.
        command.env("GGML_NO_BACKTRACE", "1");
        if std::env::var_os("TIGHTWAD_LOG").is_none() {
            command.env("TIGHTWAD_LOG", "warn");
        }
        // Its standard input ends with this process, and so does it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let output = process.stdout.take().ok_or_else(|| std::io::Error::other("it has no output"))?;
        let _input = process.stdin.take();
        Ok(Self { process, said: BufReader::new(output).lines(), _input, token })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The next thing it says; an error when it ends.
    pub(crate) async fn said(&mut self) -> Result<PoolSaid, ChildError> {
        loop {
            match self.said.next_line().await {
                Ok(Some(line)) => {
                    if let Ok(said) = serde_json::from_str(&line) {
                        return Ok(said);
                    }
                }
                _ => return Err(self.ended().await),
            }
        }
    }

    /// Completes when it ends, with how it did.
    pub(crate) async fn ended(&mut self) -> ChildError {
        match self.process.wait().await {
            Ok(status) => ChildError::Ended(status),
            Err(error) => ChildError::Lost(error),
        }
    }

    /// Ends it and waits until its memory is free.
    pub(crate) async fn stop(mut self) {
        let _ = self.process.start_kill();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.process.wait()).await;
    }
}
