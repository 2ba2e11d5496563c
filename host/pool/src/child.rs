//! The child process that runs the model of a pool. llama.cpp aborts the process when a worker is lost.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tightwad_core::{PoolSpec, Token, printable, random_hex};
use tightwad_engine::pool::PoolConfig;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};

/// The maximum time until a killed process has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The random bytes of the process's token.
const TOKEN_BYTES: usize = 32;
/// The maximum length of a message of the process in bytes.
const MAX_MESSAGE_BYTES: u64 = 64 << 10;
/// The maximum length of the reason in a message, in bytes.
const MAX_REASON_BYTES: usize = 2000;

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
    output: BufReader<ChildStdout>,
    // Kept here, because tokio's `Child::wait` closes the input that it owns, which would end the process.
    _stdin: Option<ChildStdin>,
    /// The bearer token of the process.
    pub(crate) token: Token,
}

impl Child {
    /// Starts the process, which loads the model as `config` says.
    pub(crate) fn start(spec: &PoolSpec, context: u32, config: &PoolConfig) -> std::io::Result<Self> {
        let token = Token::new(&random_hex::<TOKEN_BYTES>()).map_err(std::io::Error::other)?;
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
        own_process_group(&mut command);
        let mut process = command.spawn()?;
        let output = process
            .stdout
            .take()
            .ok_or_else(|| std::io::Error::other("the process of the pool has no standard output"))?;
        let _stdin = process.stdin.take();
        Ok(Self { process, output: BufReader::new(output), _stdin, token })
    }

    /// The process id.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Returns the next message, or an error when the process ends.
    pub(crate) async fn next_message(&mut self) -> Result<ChildMessage, ChildError> {
        match read_message(&mut self.output).await {
            Some(message) => Ok(message),
            None => Err(self.wait_for_end().await),
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

/// Returns the next message; `None` at the end of the output. Other lines are ignored.
async fn read_message(output: &mut (impl AsyncBufRead + Unpin)) -> Option<ChildMessage> {
    loop {
        let mut line = Vec::new();
        // A longer line is read in pieces, none of which is a message.
        let read = (&mut *output).take(MAX_MESSAGE_BYTES).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(read) if read > 0) {
            return None;
        }
        match serde_json::from_slice(&line) {
            Ok(ChildMessage::Failed(reason)) => {
                return Some(ChildMessage::Failed(printable(&reason, MAX_REASON_BYTES)));
            }
            Ok(message) => return Some(message),
            Err(_) => {}
        }
    }
}

/// Ctrl-C at the terminal reaches only this process, which ends its child after the running requests.
pub(crate) fn own_process_group(command: &mut Command) {
    #[cfg(unix)]
    command.process_group(0);
    #[cfg(not(unix))]
    let _ = command;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_limited_in_length() {
        let long = "x".repeat(3 * usize::try_from(MAX_MESSAGE_BYTES).unwrap());
        let failed = serde_json::to_string(&ChildMessage::Failed(format!("\u{1b}[31m{}", "y".repeat(9000))));
        let text = format!("not a message\n{long}\n{{\"Loading\":0.5}}\n{}\n", failed.unwrap());
        let mut output = text.as_bytes();
        assert_eq!(read_message(&mut output).await, Some(ChildMessage::Loading(0.5)));
        let Some(ChildMessage::Failed(reason)) = read_message(&mut output).await else { panic!("no reason") };
        assert!(reason.starts_with("\\u{1b}[31myyy") && reason.len() < 2 * MAX_REASON_BYTES, "{reason}");
        assert_eq!(read_message(&mut output).await, None);
    }

    #[cfg(unix)]
    #[test]
    fn child_has_its_own_process_group() {
        let mut command = Command::new("sh");
        // The fifth field of this file is the process group.
        command.args(["-c", "read -r id name state parent group rest < /proc/self/stat; echo $id $group"]);
        own_process_group(&mut command);
        let output = command.as_std_mut().output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let [id, group] = text.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!(id, group);
    }
}
