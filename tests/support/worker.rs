//! A running `tightwad worker`.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use tightwad_netlab::{Machine, Proxy};

use super::{BINARY, Process, set_environment};

/// A worker that a test can kill and restart at the same address. Dropping it kills the process by its id.
pub struct Worker {
    pub process: Option<Process>,
    pub address: SocketAddr,
    machine: Option<Machine>,
    cache: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Worker {
    /// Starts a worker on a free port of loopback.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), None, arguments)
    }

    /// Starts a worker with the token `t` on `machine`.
    pub fn start_on(machine: Machine, arguments: &[&str]) -> Self {
        Self::start_with_token(machine, "t", arguments)
    }

    /// Starts a worker with `token` on `machine`.
    pub fn start_with_token(machine: Machine, token: &str, arguments: &[&str]) -> Self {
        let address = SocketAddr::new(machine.address().into(), 7711);
        Self::start_at(address, Some(machine), &[&["--token", token], arguments].concat())
    }

    fn start_at(address: SocketAddr, machine: Option<Machine>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let cache = tempfile::tempdir().unwrap();
        let mut worker = Self { process: None, address, machine, cache, arguments };
        worker.restart();
        worker
    }

    /// Starts the worker again at its address, with its cache.
    pub fn restart(&mut self) {
        let mut command = match &self.machine {
            Some(machine) => machine.command(BINARY),
            None => Command::new(BINARY),
        };
        set_environment(&mut command).args([
            "worker",
            "--threads",
            "1",
            "--listen",
            &self.address.to_string(),
        ]);
        command.arg("--cache-dir").arg(self.cache.path()).args(&self.arguments);
        let process = Process::start(&mut command);
        self.address = process.address.parse().unwrap();
        self.process = Some(process);
    }

    /// Kills the worker without notice, like a power cut.
    pub fn kill(&mut self) {
        self.process.take();
    }

    pub fn url(&self) -> String {
        self.url_at(self.address)
    }

    /// The URL of the worker behind a link at `address`.
    pub fn url_at(&self, address: SocketAddr) -> String {
        self.process.as_ref().unwrap().url_at(address)
    }
}

/// Makes a network namespace. Its number is not one that a recent test used, because a removed network remains for a
/// moment.
pub fn new_machine() -> Machine {
    static NEXT_NUMBER: AtomicU8 = AtomicU8::new(0);
    Machine::new(NEXT_NUMBER.fetch_add(1, Ordering::Relaxed) % 60).unwrap()
}

/// Starts `count` workers on separate machines, each behind a link.
pub async fn start_workers(count: u8, arguments: &[&str]) -> Vec<(Worker, Proxy)> {
    let mut workers = Vec::new();
    for _ in 0..count {
        let worker = Worker::start_on(new_machine(), arguments);
        let link = Proxy::start("127.0.0.1:0".parse().unwrap(), worker.address).await.unwrap();
        workers.push((worker, link));
    }
    workers
}

/// The elements of the list `workers` of `tw.pooling`. The workers are named `w1`, `w2` and so on.
pub fn lua_workers(workers: &[(Worker, Proxy)]) -> String {
    let lua_worker = |(index, (worker, link)): (usize, &(Worker, Proxy))| {
        let url = worker.url_at(link.address());
        format!("{{ url = \"{url}\", token = \"t\", name = \"w{}\" }}", index + 1)
    };
    workers.iter().enumerate().map(lua_worker).collect::<Vec<_>>().join(", ")
}
