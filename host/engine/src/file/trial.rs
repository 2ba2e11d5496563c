//! The first load of an unknown file, in a child process that may crash.
//!
//! The child is the same program. It prints one line of JSON, or ends by a signal; its standard error then names the
//! failed assertion.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use llama_cpp_sys_2 as sys;
use serde::{Deserialize, Serialize};

use crate::error::LoadError;
use crate::file::known;
use crate::file::level::Level;
use crate::file::model_file::ModelFile;
use crate::llama::context::{ContextParams, LlamaContext};
use crate::llama::{batch::Batch, model};
use crate::vocabulary_digest::hash_vocabulary;

/// The time that a trial may take, without the time to read the file.
const BASE_TIMEOUT: Duration = Duration::from_secs(60);
/// The slowest disk that a trial waits for, in bytes per second.
const MIN_DISK_RATE: u64 = 20 << 20;
/// The longest line of the child's standard error that counts, in bytes.
const MAX_LINE_BYTES: u64 = 4096;
/// Context length of a trial in tokens.
const TRIAL_CONTEXT: u32 = 256;
/// Rows of the forward pass of a trial.
const TRIAL_ROWS: usize = 2;

/// The request to a child process.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    path: PathBuf,
    level: Level,
    gpu_layers: i32,
}

/// How this process tries unknown files.
#[derive(Debug)]
struct Trials {
    command: Vec<OsString>,
    records: Option<PathBuf>,
}

static TRIALS: OnceLock<Trials> = OnceLock::new();

/// Makes this process load each unknown model file in a child process first. `command` is a program with arguments that
/// passes its last argument to [`try_model`]. The folder `records` remembers the files that passed; without it, each
/// load tries its file. Without this call, no file is tried.
pub fn enable_trials(command: Vec<OsString>, records: Option<PathBuf>) {
    // A second call does not matter: a process has one such program.
    let _ = TRIALS.set(Trials { command, records });
}

/// Tries the model of `request`, in the child process. Prints the result and returns the exit code.
#[must_use]
pub fn try_model(request: &str) -> i32 {
    restrict_process();
    let result = serde_json::from_str::<Request>(request)
        .map_err(|error| error.to_string())
        .and_then(|request| try_request(&request).map_err(|error| error.reason()));
    // Standard output also gets the results of a test harness.
    match serde_json::to_string(&result) {
        Ok(line) => println!("\n{line}"),
        Err(error) => eprintln!("{error}"),
    }
    i32::from(result.is_err())
}

/// A crash must not write a core file or use up the memory of other processes. The child ends with its parent.
fn restrict_process() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
        // Each of these is a precaution; the trial works without it.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
}

fn try_request(request: &Request) -> Result<(), LoadError> {
    let mut params = model::default_params();
    params.n_gpu_layers = request.gpu_layers;
    params.vocab_only = request.level == Level::Vocabulary;
    if request.level == Level::Structure {
        params.no_alloc = true;
        // llama.cpp cannot map a file without its weights.
        params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
    }
    // SAFETY: the parameters contain no pointers of the caller.
    let model = unsafe { model::load(&request.path, params)? };
    let (_, longest_token) = hash_vocabulary(&model);
    tracing::debug!(longest_token, "the vocabulary is readable");
    if request.level == Level::Vocabulary {
        return Ok(());
    }
    let threads = i32::try_from(crate::runtime::cpu_count()).unwrap_or(1);
    let (tokens, rows) = (TRIAL_CONTEXT, TRIAL_ROWS as u32);
    let params = ContextParams { tokens, sequences: 1, rows, snapshots: 0, heads: false, threads };
    let failed = |reason: &str| LoadError::Refused { path: request.path.clone(), reason: reason.to_owned() };
    let context = LlamaContext::new(&model, params);
    let mut context = context.ok_or_else(|| failed("it has no usable context"))?;
    if request.level == Level::Structure {
        return Ok(());
    }
    let mut batch = Batch::default();
    (0..TRIAL_ROWS).for_each(|position| batch.add(position as u32, position, 0, true));
    context.decode(&mut batch).map_err(|error| failed(&format!("a forward pass fails: {error}")))?;
    if context.logits(TRIAL_ROWS - 1).is_empty() { Err(failed("it computes no logits")) } else { Ok(()) }
}

/// Tries `model` in a child process, unless it passed before or trials are off.
pub(crate) fn ensure_passed(model: &ModelFile, level: Level, gpu_layers: i32) -> Result<(), LoadError> {
    let Some(Trials { command, records }) = TRIALS.get() else { return Ok(()) };
    if records.as_ref().is_some_and(|folder| known::is_known(folder, model, level)) {
        return Ok(());
    }
    let path = model.path();
    let request = Request { path: path.to_owned(), level, gpu_layers };
    let timeout = BASE_TIMEOUT + Duration::from_secs(model.bytes() / MIN_DISK_RATE);
    run_child(command, &request, timeout)
        .map_err(|reason| LoadError::Refused { path: path.into(), reason })?;
    if let Some(folder) = records {
        known::remember(folder, model, level);
    }
    Ok(())
}

/// Runs the child process. Returns the reason why the model cannot be loaded.
fn run_child(command: &[OsString], request: &Request, timeout: Duration) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the process that tries it does not start: {error}");
    let argument = serde_json::to_string(request).map_err(|error| error.to_string())?;
    let (program, arguments) = command.split_first().ok_or("no program tries models")?;
    let mut child = command_for(Path::new(program), arguments, &argument).spawn().map_err(failed)?;
    let stderr = child.stderr.take();
    let (sender, complaint) = mpsc::channel();
    thread::spawn(move || sender.send(stderr.and_then(|pipe| last_complaint(BufReader::new(pipe)))));
    // Standard error ends with the child.
    let complaint = complaint.recv_timeout(timeout);
    if complaint.is_err() {
        // The child may have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let mut output = String::new();
    if let Some(pipe) = child.stdout.take() {
        let _ = pipe.take(MAX_LINE_BYTES).read_to_string(&mut output);
    }
    let result = output.lines().find_map(|line| serde_json::from_str::<Result<(), String>>(line).ok());
    match (result, complaint) {
        (Some(result), _) => result,
        (None, Err(_)) => Err(format!("it does not load within {} s", timeout.as_secs())),
        (None, Ok(complaint)) => Err(crash(status, complaint)),
    }
}

fn command_for(program: &Path, arguments: &[OsString], request: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(request);
    // ggml would search for a debugger at each failed assertion.
    command.env("GGML_NO_BACKTRACE", "1").env("TIGHTWAD_LOG", "error");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// The last line that names a failed assertion or an exception.
fn last_complaint(mut pipe: impl BufRead) -> Option<String> {
    let mut last = None;
    loop {
        let mut line = Vec::new();
        match pipe.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        let marks = ["GGML_ASSERT", "GGML_ABORT", "what():", "fatal error"];
        if let Some(place) = marks.iter().filter_map(|mark| line.find(mark)).min() {
            last = Some(tightwad_gguf::sanitize(line[place..].trim().as_bytes()));
        }
    }
}

/// Why a child without a result ended.
fn crash(status: ExitStatus, complaint: Option<String>) -> String {
    use std::os::unix::process::ExitStatusExt;
    let name = match status.signal() {
        Some(libc::SIGKILL) => "the system killed it, probably for lack of memory".to_owned(),
        Some(libc::SIGSEGV) => "it crashed with SIGSEGV".to_owned(),
        Some(libc::SIGFPE) => "it crashed with SIGFPE".to_owned(),
        Some(libc::SIGBUS) => "it crashed with SIGBUS".to_owned(),
        Some(libc::SIGABRT) => "it stopped itself".to_owned(),
        Some(signal) => format!("it crashed with signal {signal}"),
        None => format!("it ended with {status}"),
    };
    let complaint = complaint.map(|complaint| format!(" ({complaint})")).unwrap_or_default();
    format!("{name}{complaint}")
}
