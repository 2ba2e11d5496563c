//! Addresses from peer exchange (PEX). The teller is not trusted: it must not direct this machine's requests
//! to other networks.

use std::net::{IpAddr, SocketAddr};

use crate::net::peer::Peer;

/// A set of addresses whose machines may report each other.
#[derive(Debug, PartialEq, Eq)]
enum Network {
    /// This machine.
    Loopback,
    /// A private range, by its number in RFC 1918, RFC 6598 (also Tailscale) or RFC 4193.
    Private(u8),
    /// The internet.
    Global,
}

/// The seeder at `text`, if a peer at `teller` may report it: `tightwad://ADDRESS:PORT` or `http://ADDRESS:PORT` in the
/// teller's network.
pub(crate) fn accept(text: &str, teller: IpAddr) -> Option<Peer> {
    let address = text.strip_prefix("tightwad://").or_else(|| text.strip_prefix("http://"))?;
    let address: SocketAddr = address.parse().ok()?;
    let network = network_of(address.ip())?;
    let accepted = address.port() > 0 && network_of(teller) == Some(network);
    if accepted { Peer::seeder(text).ok() } else { None }
}

/// The network of an address. `None`: peer exchange never reports such an address.
fn network_of(address: IpAddr) -> Option<Network> {
    match address.to_canonical() {
        IpAddr::V4(v4) => match v4.octets() {
            [127, ..] => Some(Network::Loopback),
            // "This network", link-local with the metadata services of clouds, multicast, reserved.
            [0 | 224..=255, ..] | [169, 254, ..] => None,
            [10, ..] => Some(Network::Private(0)),
            [172, 16..=31, ..] => Some(Network::Private(1)),
            [192, 168, ..] => Some(Network::Private(2)),
            [100, 64..=127, ..] => Some(Network::Private(3)),
            _ => Some(Network::Global),
        },
        IpAddr::V6(v6) if v6.is_loopback() => Some(Network::Loopback),
        IpAddr::V6(v6) if v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() => None,
        IpAddr::V6(v6) if v6.is_unique_local() => Some(Network::Private(4)),
        IpAddr::V6(_) => Some(Network::Global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_keeps_to_the_network_of_the_teller() {
        for (teller, text) in [
            ("192.168.1.20", "http://192.168.7.1:7712"),
            ("10.0.0.1", "http://10.255.0.1:7712"),
            ("10.0.0.1", "tightwad://10.255.0.1:7712"),
            ("100.100.1.1", "http://100.64.0.7:1"),
            ("fd00::1", "http://[fd00::2]:7712"),
            ("127.0.0.1", "http://127.0.0.1:7001"),
            ("::1", "http://127.0.0.1:7001"),
            ("203.0.113.5", "http://198.51.100.7:7712"),
        ] {
            assert!(accept(text, teller.parse().unwrap()).is_some(), "{teller} tells {text}");
        }
        for (teller, text) in [
            ("192.168.1.20", "http://127.0.0.1:8088"),
            ("192.168.1.20", "http://[::1]:8088"),
            ("192.168.1.20", "http://[::ffff:127.0.0.1]:8088"),
            ("192.168.1.20", "http://10.0.0.1:80"),
            ("192.168.1.20", "http://203.0.113.5:80"),
            ("203.0.113.5", "http://192.168.1.1:80"),
            ("127.0.0.1", "http://192.168.1.1:80"),
        ] {
            assert!(accept(text, teller.parse().unwrap()).is_none(), "{teller} tells {text}");
        }
    }

    #[test]
    fn accept_refuses_all_but_plain_addresses() {
        for text in [
            "http://169.254.169.254:80",
            "http://[fe80::1]:80",
            "http://224.0.0.1:1",
            "http://[ff02::1]:1",
            "http://0.0.0.0:1",
            "http://[::]:1",
            "http://255.255.255.255:1",
            "http://10.0.0.1:0",
            "http://10.0.0.1",
            "http://name:80",
            "http://a:b@10.0.0.1:1",
            "http://10.0.0.1:1/path",
            "tightwad://10.0.0.1:1/path",
            "tightwad://10.0.0.1:1#ab",
            "https://10.0.0.1:1",
            "http://10.0.0.1:1?x",
            "https://10.0.0.1:1",
            "10.0.0.1:1",
            "file:///etc/passwd",
            "",
        ] {
            for teller in ["10.0.0.2", "169.254.0.1", "fe80::2", "127.0.0.1"] {
                assert!(accept(text, teller.parse().unwrap()).is_none(), "{text}");
            }
        }
    }
}
