//! Machines made of network namespaces. They need root and `ip` (iproute2).
//!
//! Invariant: what a machine made is removed when it is dropped.

use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Output};

/// A network namespace, joined to the main one by a wire (veth).
pub struct Machine {
    name: String,
    inside: Ipv4Addr,
    outside: Ipv4Addr,
}

/// True when this user can make machines.
#[must_use]
pub fn available() -> bool {
    let name = format!("tw-probe-{}", std::process::id());
    let made = ip(&["netns", "add", &name]).is_ok();
    if made {
        let _ = ip(&["netns", "del", &name]);
    }
    made
}

/// Lets machines reach one another, by way of the main namespace. What was set before is set again when it is
/// dropped.
pub struct Forwarding(Option<String>);

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

impl Forwarding {
    /// Sets it.
    ///
    /// # Errors
    ///
    /// Where this user may not.
    pub fn on() -> io::Result<Self> {
        let before = std::fs::read_to_string(FORWARD)?;
        if before.trim() == "1" {
            return Ok(Self(None));
        }
        std::fs::write(FORWARD, "1")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(FORWARD, before);
        }
    }
}

impl Machine {
    /// Makes machine `number` (0 to 60) of this process.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn new(number: u8) -> io::Result<Self> {
        // Networks of processes that run at once must not meet.
        let own = (std::process::id() % 250) as u8;
        let (inside, outside) =
            (Ipv4Addr::new(10, 201, own, number * 4 + 2), Ipv4Addr::new(10, 201, own, number * 4 + 1));
        let name = format!("tw{}-{number}", std::process::id());
        let wire = format!("tw{own}x{number}");
        let machine = Self { name, inside, outside };
        let name = machine.name.as_str();
        ip(&["netns", "add", name])?;
        ip(&["link", "add", &wire, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["addr", "add", &format!("{outside}/30"), "dev", &wire])?;
        ip(&["link", "set", &wire, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{inside}/30"), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "route", "add", "default", "via", &outside.to_string()])?;
        Ok(machine)
    }

    /// The machine's own address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.inside
    }

    /// The main namespace's address on the machine's wire.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.outside
    }

    /// A command that runs `program` on this machine; its process id is the program's own.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The wire goes with the namespace.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> io::Result<Output> {
    let done = Command::new("ip").args(arguments).output()?;
    if done.status.success() {
        return Ok(done);
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {}: {said}", arguments.join(" "))))
}
