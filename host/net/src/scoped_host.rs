//! Host names for link-local IPv6 addresses.
//!
//! A link-local address is meaningful only with a network interface, and a URL cannot hold one. Clients
//! therefore ask for a name such as `fe80--1s2.ipv6-literal.net`, in Microsoft's notation: `-` for `:`, and
//! `s2` for interface 2. [`Resolver`] translates such a name without a name server.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The suffix of the names.
pub(crate) const SUFFIX: &str = ".ipv6-literal.net";

/// The name of `address` on `interface`, which is a name or an index. `None` if this machine lacks the
/// interface.
pub(crate) fn host_name(address: Ipv6Addr, interface: &str) -> Option<String> {
    let is_name_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@');
    let index = || {
        let path = format!("/sys/class/net/{interface}/ifindex");
        let is_name = interface.chars().all(is_name_character);
        std::fs::read_to_string(path).ok().filter(|_| is_name)?.trim().parse().ok()
    };
    let index: u32 = interface.parse().ok().or_else(index)?;
    Some(format!("{}s{index}{SUFFIX}", address.to_string().replace(':', "-")))
}

/// The address that `name` stands for, with port 0.
fn scoped_address(name: &str) -> Option<SocketAddr> {
    let (address, index) = name.strip_suffix(SUFFIX)?.rsplit_once('s')?;
    let address = address.replace('-', ":").parse().ok()?;
    Some(SocketAddrV6::new(address, 0, 0, index.parse().ok()?).into())
}

/// Resolves names of link-local addresses here, and all other names by the system.
pub(crate) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move { Ok(Box::new(resolve(name.as_str()).await?.into_iter()) as Addrs) })
    }
}

/// The addresses of `name`, with port 0.
pub(crate) async fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    match scoped_address(name) {
        Some(address) => Ok(vec![address]),
        None => Ok(tokio::net::lookup_host((name, 0)).await?.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_link_local_address_round_trips() {
        let address: Ipv6Addr = "fe80::a:1".parse().unwrap();
        let name = host_name(address, "7").unwrap();
        assert_eq!(name, "fe80--a-1s7.ipv6-literal.net");
        let SocketAddr::V6(resolved) = scoped_address(&name).unwrap() else { panic!("{name}") };
        assert_eq!((*resolved.ip(), resolved.scope_id()), (address, 7));
        assert_eq!(host_name(address, "lo"), host_name(address, "1"));
        assert_eq!(host_name(address, "../lo"), None);
        assert_eq!(scoped_address("example.net"), None);
    }

    #[tokio::test]
    async fn resolver_asks_the_system_for_other_names() {
        let addresses = Resolver.resolve("localhost".parse().unwrap()).await.unwrap();
        assert!(addresses.into_iter().all(|address| address.ip().is_loopback()));
    }
}
