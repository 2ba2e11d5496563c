//! Discovery of nodes and seeders on the local network by multicast DNS (RFC 6762, RFC 6763).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

/// The DNS-SD service type of nodes.
const NODE_SERVICE: &str = "_tightwad._tcp.local.";
/// The DNS-SD service type of seeders.
const SEEDER_SERVICE: &str = "_tightwad-swarm._tcp.local.";
/// The keys of the TXT record.
const VERSION_KEY: &str = "version";
const MODELS_KEY: &str = "models";

/// The reason why this machine cannot send or receive multicasts.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The service record is not valid.
    #[error(transparent)]
    Record(mdns_sd::Error),
    /// The multicast DNS daemon does not start.
    #[error(transparent)]
    Daemon(mdns_sd::Error),
    /// The daemon cannot announce the service.
    #[error(transparent)]
    Announce(mdns_sd::Error),
    /// The daemon cannot browse for services.
    #[error(transparent)]
    Browse(mdns_sd::Error),
}

/// A node on the local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredNode {
    /// The machine's name.
    pub name: String,
    /// `http://HOST:PORT`, for `tw.node{}`.
    pub url: String,
    /// The node's version of tightwad.
    pub version: String,
    /// The models that the node lends.
    pub models: Vec<String>,
}

/// An announcement of this machine's service. Dropping it withdraws the announcement.
pub struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

impl Announcement {
    /// Announces a node that listens on `address` and lends `models`. A node that listens on all addresses is
    /// announced on every network of this machine.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`] if this machine cannot send multicasts.
    pub fn node(address: SocketAddr, models: &[String]) -> Result<Self, DiscoveryError> {
        let models = models.join(",");
        Self::register(
            NODE_SERVICE,
            address,
            &[(VERSION_KEY, env!("CARGO_PKG_VERSION")), (MODELS_KEY, models.as_str())],
        )
    }

    /// Announces a seeder that listens on `address`.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`] if this machine cannot send multicasts.
    pub fn seeder(address: SocketAddr) -> Result<Self, DiscoveryError> {
        Self::register(SEEDER_SERVICE, address, &[(VERSION_KEY, env!("CARGO_PKG_VERSION"))])
    }

    fn register(
        service: &str,
        address: SocketAddr,
        properties: &[(&str, &str)],
    ) -> Result<Self, DiscoveryError> {
        let (ip, port) = (address.ip(), address.port());
        let host = hostname();
        let instance = format!("{host}-{port}");
        let dns = format!("{host}.local.");
        let host_ip = if ip.is_unspecified() { String::new() } else { ip.to_string() };
        let info = ServiceInfo::new(service, &instance, &dns, host_ip.as_str(), port, properties);
        let info = info.map_err(DiscoveryError::Record)?;
        let info = if ip.is_unspecified() { info.enable_addr_auto() } else { info };
        let name = info.get_fullname().to_owned();
        let daemon = ServiceDaemon::new().map_err(DiscoveryError::Daemon)?;
        daemon.register(info).map_err(DiscoveryError::Announce)?;
        Ok(Self { daemon, name })
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // An announcement that cannot be withdrawn expires by itself.
        if let Ok(done) = self.daemon.unregister(&self.name) {
            let _ = done.recv_timeout(Duration::from_millis(300));
        }
        let _ = self.daemon.shutdown();
    }
}

/// Browses for `wait` and returns the nodes that replied, sorted by name.
///
/// # Errors
///
/// [`DiscoveryError`] if this machine cannot receive multicasts.
pub async fn discover_nodes(wait: Duration) -> Result<Vec<DiscoveredNode>, DiscoveryError> {
    let daemon = ServiceDaemon::new().map_err(DiscoveryError::Daemon)?;
    let events = daemon.browse(NODE_SERVICE).map_err(DiscoveryError::Browse)?;
    let deadline = Instant::now() + wait;
    let mut nodes = BTreeMap::new();
    while let Ok(Ok(event)) = tokio::time::timeout_at(deadline.into(), events.recv_async()).await {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                if let Some(node) = parse_node(&service) {
                    nodes.insert(service.get_fullname().to_owned(), node);
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => drop(nodes.remove(&name)),
            _ => {}
        }
    }
    let _ = daemon.shutdown();
    Ok(nodes.into_values().collect())
}

/// A running search for seeders.
pub struct SeederDiscovery {
    daemon: ServiceDaemon,
    events: mdns_sd::Receiver<ServiceEvent>,
}

impl SeederDiscovery {
    /// The URL of the next seeder, `http://HOST:PORT`; `None` after the multicast DNS daemon has ended.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let ServiceEvent::ServiceResolved(service) = self.events.recv_async().await.ok()?
                && let Some(found) = parse_node(&service)
            {
                return Some(found.url);
            }
        }
    }
}

impl Drop for SeederDiscovery {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

/// Starts to browse for seeders.
///
/// # Errors
///
/// [`DiscoveryError`] if this machine cannot receive multicasts.
pub fn discover_seeders() -> Result<SeederDiscovery, DiscoveryError> {
    let daemon = ServiceDaemon::new().map_err(DiscoveryError::Daemon)?;
    let events = daemon.browse(SEEDER_SERVICE).map_err(DiscoveryError::Browse)?;
    Ok(SeederDiscovery { daemon, events })
}

/// The node that a service record describes. An address that other machines can reach comes before a loopback
/// address.
fn parse_node(service: &ResolvedService) -> Option<DiscoveredNode> {
    let addresses = service.get_addresses_v4();
    let address = addresses.iter().min_by_key(|address| (address.is_loopback(), **address))?;
    let property = |key| service.get_property_val_str(key).unwrap_or_default();
    let name = service.get_hostname().trim_end_matches('.').trim_end_matches(".local");
    Some(DiscoveredNode {
        name: name.to_owned(),
        url: format!("http://{address}:{}", service.get_port()),
        version: property(VERSION_KEY).to_owned(),
        models: property(MODELS_KEY).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    })
}

/// This machine's name, restricted to letters, digits and `-`, at most 40 characters.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "node".to_owned() } else { name.chars().take(40).collect() }
}
