//! A process of ours that says where it listens.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Ended by its process id when dropped.
pub struct Process {
    child: Child,
    /// What follows `http://` in the line that says where it listens.
    pub address: String,
    pub log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts `command` and waits until it says where it listens.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        while address.is_none() {
            let Some(Ok(line)) = lines.next() else { break };
            address = line
                .split("at http://")
                .nth(1)
                .filter(|_| line.starts_with("tightwad "))
                .map(|rest| rest.trim_end_matches("/v1").to_owned());
            log.lock().unwrap().push_str(&format!("{line}\n"));
        }
        let Some(address) = address else { panic!("it did not start: {}", log.lock().unwrap()) };
        let rest = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                rest.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { child, address, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it does so within `time`.
    pub fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + time;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return Some(status),
                None if Instant::now() > until => return None,
                None => std::thread::park_timeout(Duration::from_millis(10)),
            }
        }
    }

    /// Sends it a signal by its process id.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn logged(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until `text` is in the log, for at most so many `seconds`.
    pub async fn until_logged(&self, text: &str, seconds: u64) {
        let start = Instant::now();
        while !self.logged().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(seconds), "no '{text}' in {}", self.logged());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
