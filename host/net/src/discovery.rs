//! Nodes on the local network make themselves known by multicast DNS (RFC 6762, RFC 6763), so that
//! addresses need not be typed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

/// The type of service under which nodes are found.
const SERVICE: &str = "_tightwad._tcp.local.";
/// The same of seeders of models.
const SEEDERS: &str = "_tightwad-swarm._tcp.local.";
/// The properties of the record.
const VERSION: &str = "version";
const MODELS: &str = "models";

/// Why this machine cannot send or receive multicasts.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The record of a service is not valid.
    #[error(transparent)]
    Record(mdns_sd::Error),
    /// The daemon for multicast DNS does not start.
    #[error(transparent)]
    Daemon(mdns_sd::Error),
    /// The daemon does not announce a service.
    #[error(transparent)]
    Announce(mdns_sd::Error),
    /// The daemon does not look for services.
    #[error(transparent)]
    Browse(mdns_sd::Error),
}

/// A node that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The machine's name.
    pub name: String,
    /// `http://HOST:PORT`, for `tw.node{}`.
    pub url: String,
    /// The version it runs.
    pub version: String,
    /// The models it lends.
    pub models: Vec<String>,
}

/// A node's own announcement; it ends when this is dropped.
pub struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

impl Announcement {
    /// Announces a node that listens on `address` and lends `models`: on every network of this machine
    /// where it listens on all of them.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`], where this machine cannot send multicasts.
    pub fn new(address: SocketAddr, models: &[String]) -> Result<Self, DiscoveryError> {
        let models = models.join(",");
        Self::of(SERVICE, address, &[(VERSION, env!("CARGO_PKG_VERSION")), (MODELS, models.as_str())])
    }

    /// Announces a seeder that listens on `address`.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`], where this machine cannot send multicasts.
    pub fn seeder(address: SocketAddr) -> Result<Self, DiscoveryError> {
        Self::of(SEEDERS, address, &[(VERSION, env!("CARGO_PKG_VERSION"))])
    }

    fn of(service: &str, address: SocketAddr, properties: &[(&str, &str)]) -> Result<Self, DiscoveryError> {
        let (ip, port) = (address.ip(), address.port());
        let host = hostname();
        let instance = format!("{host}-{port}");
        let dns = format!("{host}.local.");
        let own = if ip.is_unspecified() { String::new() } else { ip.to_string() };
        let info = ServiceInfo::new(service, &instance, &dns, own.as_str(), port, properties);
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
        // What cannot be taken back expires by itself.
        if let Ok(done) = self.daemon.unregister(&self.name) {
            let _ = done.recv_timeout(Duration::from_millis(300));
        }
        let _ = self.daemon.shutdown();
    }
}

/// Listens for `wait` and returns the nodes that answered, by name.
///
/// # Errors
///
/// [`DiscoveryError`], where this machine cannot receive multicasts.
pub async fn discover(wait: Duration) -> Result<Vec<Found>, DiscoveryError> {
    let daemon = ServiceDaemon::new().map_err(DiscoveryError::Daemon)?;
    let events = daemon.browse(SERVICE).map_err(DiscoveryError::Browse)?;
    let until = Instant::now() + wait;
    let mut found = BTreeMap::new();
    while let Ok(Ok(event)) = tokio::time::timeout_at(until.into(), events.recv_async()).await {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                if let Some(node) = node(&service) {
                    found.insert(service.get_fullname().to_owned(), node);
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => drop(found.remove(&name)),
            _ => {}
        }
    }
    let _ = daemon.shutdown();
    Ok(found.into_values().collect())
}

/// Seeders, as they make themselves known.
pub struct Announced {
    daemon: ServiceDaemon,
    events: mdns_sd::Receiver<ServiceEvent>,
}

impl Announced {
    /// The next one, as `http://HOST:PORT`; `None` when this machine hears no more.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let ServiceEvent::ServiceResolved(service) = self.events.recv_async().await.ok()?
                && let Some(found) = node(&service)
            {
                return Some(found.url);
            }
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

/// Listens for seeders of models.
///
/// # Errors
///
/// [`DiscoveryError`], where this machine cannot receive multicasts.
pub fn discover_seeders() -> Result<Announced, DiscoveryError> {
    let daemon = ServiceDaemon::new().map_err(DiscoveryError::Daemon)?;
    let events = daemon.browse(SEEDERS).map_err(DiscoveryError::Browse)?;
    Ok(Announced { daemon, events })
}

/// Of several addresses one that other machines reach, where there is one.
fn node(service: &ResolvedService) -> Option<Found> {
    let addresses = service.get_addresses_v4();
    let address = addresses.iter().min_by_key(|address| (address.is_loopback(), **address))?;
    let property = |key| service.get_property_val_str(key).unwrap_or_default();
    let name = service.get_hostname().trim_end_matches('.').trim_end_matches(".local");
    Some(Found {
        name: name.to_owned(),
        url: format!("http://{address}:{}", service.get_port()),
        version: property(VERSION).to_owned(),
        models: property(MODELS).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    })
}

/// This machine's name, of characters that DNS takes.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "node".to_owned() } else { name.chars().take(40).collect() }
}
