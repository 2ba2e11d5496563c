//! The host's side of the helper processes.
//!
//! A helper answers one request at a time. Each caller takes an idle helper, or starts one. A helper that does not answer
//! is killed, so a template can only fail its own request.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tightwad_core::sync::lock;

use crate::error::ChatError;
use crate::helper::STACK_BYTES;
use crate::native;

/// The time after which a helper without an answer is killed. A helper ends by itself much earlier, unless the machine
/// has no processor time for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of requests that a helper answers. Its memory can grow with each.
const MAX_ANSWERS: u32 = 1000;
/// The C++ side's reason when it lacks memory.
const NO_MEMORY: &str = "bad_alloc";

/// The answer of the C++ side.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(Value),
    Template(String),
    Refused(String),
    TooSlow(u64),
}

/// The command of the helper processes, and those that wait for a request.
struct Helpers {
    command: Vec<OsString>,
    idle: Mutex<Vec<Helper>>,
}

static HELPERS: OnceLock<Helpers> = OnceLock::new();

/// Makes this process render templates in helper processes. `command` is a program with arguments that calls
/// [`crate::run_helper`]. Without this call, templates are rendered in this process, without limits.
pub fn enable_helpers(command: Vec<OsString>) {
    // A second call does not matter: a process has one such program.
    let _ = HELPERS.set(Helpers { command, idle: Mutex::new(Vec::new()) });
}

/// Answers a request. Blocks the thread.
pub(crate) fn answer(request: &Value) -> Result<Value, ChatError> {
    let request = request.to_string();
    let answer = match HELPERS.get() {
        Some(helpers) => helpers.answer(&request)?,
        None => read(&answer_here(&request)?)?,
    };
    match answer {
        Answer::Ok(value) => Ok(value),
        Answer::Template(reason) => Err(ChatError::Broken(author_text(&reason))),
        Answer::Refused(reason) => Err(ChatError::Refused(author_text(&reason))),
        Answer::TooSlow(seconds) => Err(ChatError::TooSlow { seconds }),
    }
}

fn read(answer: &str) -> Result<Answer, ChatError> {
    serde_json::from_str(answer)
        .map_err(|error| ChatError::Crashed(format!("its answer is invalid: {error}")))
}

/// Answers in this process, on a thread with a large stack.
fn answer_here(request: &str) -> Result<String, ChatError> {
    let failed = |reason: &str| ChatError::Crashed(reason.to_owned());
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK_BYTES);
        let worker = worker.spawn_scoped(scope, || native::answer(request));
        let worker = worker.map_err(|error| ChatError::NotStarted(error.to_string()))?;
        worker.join().ok().flatten().ok_or_else(|| failed("it needs too much memory"))
    })
}

/// The message that the template's author wrote, if `reason` has one. Otherwise the first line of `reason`.
fn author_text(reason: &str) -> String {
    let reason = reason.rsplit("Jinja Exception: ").next().unwrap_or(reason).trim();
    let line = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown error");
    line.trim().to_owned()
}

impl Helpers {
    fn answer(&self, request: &str) -> Result<Answer, ChatError> {
        let mut helper = match self.take_idle() {
            Some(helper) => helper,
            None => Helper::start(&self.command)?,
        };
        let answer = read(&helper.answer(request)?)?;
        // A helper that was too slow ends. After a lack of memory, or many answers, a new one is better.
        let is_sound = match &answer {
            Answer::TooSlow(_) => false,
            Answer::Refused(reason) => !reason.contains(NO_MEMORY),
            Answer::Ok(_) | Answer::Template(_) => true,
        };
        if is_sound && helper.answers_left > 0 {
            lock(&self.idle).push(helper);
        }
        Ok(answer)
    }

    /// An idle helper that still runs.
    fn take_idle(&self) -> Option<Helper> {
        let mut idle = lock(&self.idle);
        while let Some(mut helper) = idle.pop() {
            if matches!(helper.child.try_wait(), Ok(None)) {
                return Some(helper);
            }
        }
        None
    }
}

/// A running helper process.
struct Helper {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    answers_left: u32,
}

impl Helper {
    fn start(command: &[OsString]) -> Result<Self, ChatError> {
        let not_started = |reason: &str| ChatError::NotStarted(reason.to_owned());
        let (program, arguments) = command.split_first().ok_or_else(|| not_started("it has no command"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Dates in templates do not depend on the place of a machine.
        command.env("TZ", "UTC").env("GGML_NO_BACKTRACE", "1");
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_secret(name)) {
            command.env_remove(name);
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| not_started(&error.to_string()))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, output) = pipes.ok_or_else(|| not_started("it has no pipes"))?;
        let (sender, answers) = mpsc::channel();
        let helper = Self { child, requests, answers, answers_left: MAX_ANSWERS };
        let reader = thread::Builder::new().spawn(move || {
            // A test harness writes lines of its own.
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for line in lines.filter(|line| line.starts_with('{')) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        reader.map_err(|error| not_started(&error.to_string()))?;
        Ok(helper)
    }

    fn answer(&mut self, request: &str) -> Result<String, ChatError> {
        self.answers_left -= 1;
        let sent = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        match self.answers.recv_timeout(ANSWER_TIMEOUT) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(ChatError::NoAnswer { seconds: ANSWER_TIMEOUT.as_secs() }),
            Err(RecvTimeoutError::Disconnected) => {
                // It may have closed its output only.
                let _ = self.child.kill();
                let status = self.child.wait().map(|status| status.to_string());
                let reason = status.or_else(|error| sent.map(|()| error.to_string()));
                Err(ChatError::Crashed(reason.unwrap_or_else(|error| error.to_string())))
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True for the variables with tokens of this program.
fn is_secret(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("TIGHTWAD_") && name.ends_with("TOKEN"))
}
