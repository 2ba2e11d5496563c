//! Discovery of nodes and seeders on the local network by multicast DNS (RFC 6762, RFC 6763).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};

use crate::excerpt::excerpt;
use crate::tls::MACHINE_SCHEME;

/// The DNS-SD service type of nodes.
const NODE_SERVICE: &str = "_tightwad._tcp.local.";
/// The DNS-SD service type of seeders.
const SEEDER_SERVICE: &str = "_tightwad-swarm._tcp.local.";
/// The maximum number of nodes of one search.
const MAX_DISCOVERED_NODES: usize = 256;
/// The keys of the TXT record.
const VERSION_KEY: &str = "version";
const MODELS_KEY: &str = "models";
/// `tls`: the service is encrypted. Its fingerprint is not announced: anyone can announce, so a client that trusted it
/// would trust anyone.
const ENCRYPTION_KEY: &str = "encryption";
const TLS: &str = "tls";
const PLAIN: &str = "none";

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
    /// `tightwad://HOST:PORT` or `http://HOST:PORT`, for `tw.node{}`.
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
    pub fn node(address: SocketAddr, encrypted: bool, models: &[String]) -> Result<Self, DiscoveryError> {
        let models = models.join(",");
        Self::register(NODE_SERVICE, address, encrypted, &[(MODELS_KEY, models.as_str())])
    }

    /// Announces a seeder that listens on `address`.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`] if this machine cannot send multicasts.
    pub fn seeder(address: SocketAddr, encrypted: bool) -> Result<Self, DiscoveryError> {
        Self::register(SEEDER_SERVICE, address, encrypted, &[])
    }

    fn register(
        service: &str,
        address: SocketAddr,
        encrypted: bool,
        further_properties: &[(&str, &str)],
    ) -> Result<Self, DiscoveryError> {
        let encryption = if encrypted { TLS } else { PLAIN };
        let properties = [(VERSION_KEY, env!("CARGO_PKG_VERSION")), (ENCRYPTION_KEY, encryption)];
        let properties = [&properties, further_properties].concat();
        let (ip, port) = (address.ip(), address.port());
        let host = hostname();
        let instance = format!("{host}-{port}");
        let dns = format!("{host}.local.");
        let host_ip = if ip.is_unspecified() { String::new() } else { ip.to_string() };
        let info = ServiceInfo::new(service, &instance, &dns, host_ip.as_str(), port, properties.as_slice());
        let info = info.map_err(DiscoveryError::Record)?;
        let mut info = if ip.is_unspecified() { info.enable_addr_auto() } else { info };
        if ip == IpAddr::from([0, 0, 0, 0]) {
            // The server does not listen on the IPv6 addresses of this machine.
            info.set_interfaces(vec![IfKind::IPv4]);
        }
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
                if let Some(node) = parse_node(&service).filter(|_| nodes.len() < MAX_DISCOVERED_NODES) {
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
    /// The URL of the next seeder, `tightwad://HOST:PORT` or `http://HOST:PORT`; `None` after the multicast DNS daemon
    /// has ended.
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

/// The node that a service record describes.
fn parse_node(service: &ResolvedService) -> Option<DiscoveredNode> {
    let addresses = service.get_addresses().iter().map(|address| {
        let interface = match address {
            ScopedIp::V6(address) => address.scope_id().name.clone(),
            _ => String::new(),
        };
        (address.to_ip_addr(), interface)
    });
    let host = best_host(addresses)?;
    let property = |key| service.get_property_val_str(key).unwrap_or_default();
    let printable = |text: &str| excerpt(text, None);
    let scheme = if property(ENCRYPTION_KEY) == TLS { MACHINE_SCHEME } else { "http" };
    let name = service.get_hostname().trim_end_matches('.').trim_end_matches(".local");
    Some(DiscoveredNode {
        name: printable(name),
        url: format!("{scheme}://{host}:{}", service.get_port()),
        version: printable(property(VERSION_KEY)),
        models: property(MODELS_KEY).split(',').filter(|name| !name.is_empty()).map(printable).collect(),
    })
}

/// The address that other machines reach most likely, as the host of a URL. Each address has the name of the
/// network interface that received it.
///
/// IPv4 comes first, then global and unique local IPv6, then link-local addresses, then loopback.
fn best_host(addresses: impl Iterator<Item = (IpAddr, String)>) -> Option<String> {
    let rank = |address: &IpAddr| match address {
        address if address.is_loopback() => 3,
        IpAddr::V4(address) if address.is_link_local() => 2,
        IpAddr::V6(address) if address.is_unicast_link_local() => 2,
        IpAddr::V6(_) => 1,
        IpAddr::V4(_) => 0,
    };
    let is_reachable = |(address, interface): &(IpAddr, String)| match address {
        // A link-local address without its interface reaches no machine.
        IpAddr::V6(address) => !address.is_unicast_link_local() || !interface.is_empty(),
        IpAddr::V4(_) => true,
    };
    let best = addresses
        .filter(is_reachable)
        .min_by_key(|(address, interface)| (rank(address), *address, interface.clone()));
    best.map(|(address, interface)| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) if address.is_unicast_link_local() => format!("[{address}%25{interface}]"),
        IpAddr::V6(address) => format!("[{address}]"),
    })
}

/// This machine's name, restricted to letters, digits and `-`, at most 40 characters.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "node".to_owned() } else { name.chars().take(40).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_url::ServerUrl;

    #[test]
    fn best_host_prefers_reachable_addresses() {
        let host = |addresses: &[&str]| {
            let parsed = addresses.iter().map(|text| {
                let (address, interface) = text.split_once('%').unwrap_or((text, ""));
                (address.parse().unwrap(), interface.to_owned())
            });
            best_host(parsed)
        };
        let all = ["::1", "127.0.0.1", "fe80::1%lo", "169.254.0.9", "fd00::5", "10.0.0.2"];
        assert_eq!(host(&all).unwrap(), "10.0.0.2");
        assert_eq!(host(&all[..5]).unwrap(), "[fd00::5]");
        assert_eq!(host(&all[..4]).unwrap(), "169.254.0.9");
        assert_eq!(host(&all[..3]).unwrap(), "[fe80::1%25lo]");
        assert_eq!(host(&all[..2]).unwrap(), "127.0.0.1");
        assert_eq!(host(&["fe80::1"]), None, "the interface is unknown");
        assert_eq!(host(&[]), None);
    }

    #[test]
    fn link_local_host_is_the_address_of_a_server() {
        let host = best_host([("fe80::1".parse().unwrap(), "lo".to_owned())].into_iter()).unwrap();
        let url: ServerUrl = format!("http://{host}:7710").parse().unwrap();
        assert_eq!(url.to_string(), "http://[fe80::1%25lo]:7710");
    }
}
