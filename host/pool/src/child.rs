//! The child process that runs the model of a pool. llama.cpp aborts the process when a worker is lost.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tightwad_core::{PoolSpec, Token};
use tightwad_engine::pool::PoolConfig;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

/// The maximum time until a killed process has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A message of the process to the host: one line of JSON on its standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ChildMessage {
    /// The loaded share of the model, from 0 to 1.
    Loading(f32),
    /// The model is loaded. The process listens at this address.
    Listening(SocketAddr),
    /// The model cannot be loaded, for this reason.
    Failed(String),
}

/// The reason why the process sends no more messages.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The process ended.
    #[error("the process of the pool ended: {0}")]
    Ended(ExitStatus),
    /// The host cannot wait for the process.
    #[error("cannot wait for the process of the pool: {0}")]
    Lost(#[source] std::io::Error),
}

/// The process. Dropping the handle ends the process.
pub(crate) struct Child {
    process: tokio::process::Child,
    messages: Lines<BufReader<ChildStdout>>,
    // Kept here, because tokio's `Child::wait` closes the input that it owns, which would end the process.
    _stdin: Option<ChildStdin>,
    /// The bearer token of the process.
    pub(crate) token: Token,
}

impl Child {
    /// Starts the process, which loads the model as `config` says.
    pub(crate) fn start(spec: &PoolSpec, context: u32, config: &PoolConfig) -> std::io::Result<Self> {
        let token = Token::new(&format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)));
        let token = token.map_err(std::io::Error::other)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", "--no-announce", "--listen", "127.0.0.1:0", "--session-idle-timeout", "3600"]);
        command.args(["--max-sessions-per-client", "256", "--slots", &spec.slots.to_string()]);
        command.arg("--model").arg(format!("{}={}", spec.name, spec.path.display()));
        command.arg("--pool").arg(serde_json::to_string(config)?);
        let numbers =
            [("--context", Some(context)), ("--max-queue", spec.max_queue), ("--threads", spec.threads)];
        for (name, value) in numbers {
            if let Some(value) = value {
                command.args([name, &value.to_string()]);
            }
        }
        // Other users can see arguments, but not the environment.
        command.env("TIGHTWAD_TOKEN", token.secret());
        // ggml would search for a debugger at each lost worker, which takes seconds.
        command.env("GGML_NO_BACKTRACE", "1");
        if std::env::var_os("TIGHTWAD_LOG").is_none() {
            command.env("TIGHTWAD_LOG", "warn");
        }
        // The child's standard input closes when this process ends. The child then ends too.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let output = process
            .stdout
            .take()
            .ok_or_else(|| std::io::Error::other("the process of the pool has no standard output"))?;
        let _stdin = process.stdin.take();
        Ok(Self { process, messages: BufReader::new(output).lines(), _stdin, token })
    }

    /// The process id.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Returns the next message, or an error when the process ends.
    pub(crate) async fn next_message(&mut self) -> Result<ChildMessage, ChildError> {
        loop {
            match self.messages.next_line().await {
                Ok(Some(line)) => {
                    if let Ok(message) = serde_json::from_str(&line) {
                        return Ok(message);
                    }
                }
                _ => return Err(self.wait_for_end().await),
            }
        }
    }

    /// Completes when the process ends.
    pub(crate) async fn wait_for_end(&mut self) -> ChildError {
        match self.process.wait().await {
            Ok(status) => ChildError::Ended(status),
            Err(error) => ChildError::Lost(error),
        }
    }

    /// Ends the process and waits until its memory is free.
    pub(crate) async fn stop(mut self) {
        let _ = self.process.start_kill();
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.process.wait()).await;
    }
}
