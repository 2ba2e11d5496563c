//! A running `tightwad worker`.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use tightwad_netlab::{Machine, Proxy};

use super::{BINARY, Process, environment};

/// Ended by its process id when dropped; can be killed and started again at the same address.
pub struct Worker {
    pub process: Option<Process>,
    pub address: SocketAddr,
    machine: Option<Machine>,
    cache: tempfile::TempDir,
    more: Vec<String>,
}

impl Worker {
    /// Lends this machine on a free port of loopback.
    pub fn start(more: &[&str]) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), None, more)
    }

    /// Lends a machine of its own, with a token: `t`.
    pub fn on(machine: Machine, more: &[&str]) -> Self {
        let address = SocketAddr::new(machine.address().into(), 7711);
        Self::at(address, Some(machine), &[&["--token", "t"], more].concat())
    }

    fn at(address: SocketAddr, machine: Option<Machine>, more: &[&str]) -> Self {
        let more = more.iter().map(|&one| one.to_owned()).collect();
        let cache = tempfile::tempdir().unwrap();
        let mut worker = Self { process: None, address, machine, cache, more };
        worker.again();
        worker
    }

    /// Starts it again, where it was, with what it kept.
    pub fn again(&mut self) {
        let mut command = match &self.machine {
            Some(machine) => machine.command(BINARY),
            None => Command::new(BINARY),
        };
        environment(&mut command).args(["worker", "--threads", "1", "--listen", &self.address.to_string()]);
        command.arg("--cache").arg(self.cache.path()).args(&self.more);
        let process = Process::start(&mut command);
        self.address = process.address.parse().unwrap();
        self.process = Some(process);
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        self.process.take();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A machine of its own: a network namespace with a number that no test used lately, because networks that were just
/// taken down linger for a moment.
pub fn machine() -> Machine {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    Machine::new(NEXT.fetch_add(1, Ordering::Relaxed) % 60).unwrap()
}

/// Workers on machines of their own, each behind a link.
pub async fn workers(count: u8, more: &[&str]) -> Vec<(Worker, Proxy)> {
    let mut workers = Vec::new();
    for _ in 0..count {
        let worker = Worker::on(machine(), more);
        let link = Proxy::start("127.0.0.1:0".parse().unwrap(), worker.address).await.unwrap();
        workers.push((worker, link));
    }
    workers
}

/// The `workers` of `tw.pooling`.
pub fn listed(workers: &[(Worker, Proxy)]) -> String {
    let one = |(index, (_, link)): (usize, &(Worker, Proxy))| {
        format!("{{ url = \"http://{}\", token = \"t\", name = \"w{}\" }}", link.address(), index + 1)
    };
    workers.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
}
