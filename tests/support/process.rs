//! A process of the real binary that reports its address.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A running process. Dropping it kills the process by its id.
pub struct Process {
    child: Child,
    /// Host and port of the address that the process reports.
    pub address: String,
    /// The fingerprint in that address, of an encrypted process.
    pub fingerprint: Option<String>,
    /// The standard error of the process so far.
    pub log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts `command` and waits until the process reports its address.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut url = None;
        while url.is_none() {
            let Some(Ok(line)) = lines.next() else { break };
            let reported = line.strip_prefix("tightwad ").and_then(|line| line.rsplit_once(" at "));
            url = reported
                .and_then(|(_, url)| Some(url.split_once("://")?.1.trim_end_matches("/v1").to_owned()));
            log.lock().unwrap().push_str(&format!("{line}\n"));
        }
        let Some(url) = url else {
            panic!("the process did not report its address: {}", log.lock().unwrap())
        };
        let (address, fingerprint) = match url.split_once('#') {
            Some((address, fingerprint)) => (address.to_owned(), Some(fingerprint.to_owned())),
            None => (url, None),
        };
        let thread_log = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                thread_log.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { child, address, fingerprint, log }
    }

    /// The URL of this process behind a link at `address`.
    pub fn url_at(&self, address: SocketAddr) -> String {
        match &self.fingerprint {
            Some(fingerprint) => format!("tightwad://{address}#{fingerprint}"),
            None => format!("http://{address}"),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end of the process. Returns its exit status, or `None` after `timeout`.
    pub fn wait_for_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return Some(status),
                None if Instant::now() > deadline => return None,
                None => std::thread::park_timeout(Duration::from_millis(10)),
            }
        }
    }

    /// Sends `signal` to the process by its id.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn log_text(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until `text` is in the log, for at most `seconds`.
    pub async fn wait_for_log(&self, text: &str, seconds: u64) {
        let start = Instant::now();
        while !self.log_text().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(seconds), "no '{text}' in {}", self.log_text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
