//! Machines made of network namespaces. They need root and `ip` (iproute2).
//!
//! Invariant: dropping a machine removes its namespace and its link.

use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Output};

/// A network namespace with a link (veth) to the main namespace.
pub struct Machine {
    name: String,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
}

/// True when this user can create machines.
#[must_use]
pub fn available() -> bool {
    let name = format!("tw-probe-{}", std::process::id());
    let created = ip(&["netns", "add", &name]).is_ok();
    if created {
        let _ = ip(&["netns", "del", &name]);
    }
    created
}

/// Forwards packets between machines through the main namespace. Dropping the value restores the previous setting.
pub struct Forwarding(Option<String>);

const FORWARD_PATH: &str = "/proc/sys/net/ipv4/ip_forward";

impl Forwarding {
    /// Enables forwarding.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if this user may not change the setting.
    pub fn enable() -> io::Result<Self> {
        let previous = std::fs::read_to_string(FORWARD_PATH)?;
        if previous.trim() == "1" {
            return Ok(Self(None));
        }
        std::fs::write(FORWARD_PATH, "1")?;
        Ok(Self(Some(previous)))
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(previous) = &self.0 {
            let _ = std::fs::write(FORWARD_PATH, previous);
        }
    }
}

impl Machine {
    /// Creates machine `number` (0 to 60) of this process.
    ///
    /// # Errors
    ///
    /// Returns the error message of `ip`.
    pub fn new(number: u8) -> io::Result<Self> {
        // Each process has its own network, because processes can run concurrently.
        let network = (std::process::id() % 250) as u8;
        let (address, gateway) = (
            Ipv4Addr::new(10, 201, network, number * 4 + 2),
            Ipv4Addr::new(10, 201, network, number * 4 + 1),
        );
        let name = format!("tw{}-{number}", std::process::id());
        let link = format!("tw{network}x{number}");
        let machine = Self { name, address, gateway };
        let name = machine.name.as_str();
        ip(&["netns", "add", name])?;
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["addr", "add", &format!("{gateway}/30"), "dev", &link])?;
        ip(&["link", "set", &link, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{address}/30"), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "route", "add", "default", "via", &gateway.to_string()])?;
        Ok(machine)
    }

    /// The address of the machine.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The address of the main namespace on the machine's link.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// A command that runs `program` on this machine. The process id is the program's, because `ip` replaces itself.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Deleting the namespace deletes the link too.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> io::Result<Output> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(output);
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {}: {message}", arguments.join(" "))))
}
