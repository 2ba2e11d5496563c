//! The addresses and networks that may use a server.

use std::net::IpAddr;
use std::str::FromStr;

/// The text is neither an IP address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address such as 192.168.1.20 or a network such as 192.168.1.0/24")]
pub struct InvalidNetwork(pub String);

/// An address, or a network such as `192.168.1.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedNetwork {
    network: IpAddr,
    /// Prefix length in bits.
    prefix_bits: u32,
}

impl FromStr for AllowedNetwork {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.to_owned());
        let (address, prefix_bits) =
            text.split_once('/').map_or((text, None), |(a, prefix_bits)| (a, Some(prefix_bits)));
        let network: IpAddr = address.parse().map_err(|_| invalid())?;
        let max_bits = if network.is_ipv4() { 32 } else { 128 };
        let prefix_bits =
            prefix_bits.map_or(Ok(max_bits), |prefix_bits| prefix_bits.parse().map_err(|_| invalid()))?;
        if prefix_bits > max_bits {
            return Err(invalid());
        }
        Ok(Self { network, prefix_bits })
    }
}

impl AllowedNetwork {
    /// True when `address` belongs to this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let host_bits = 32 - self.prefix_bits;
                u64::from(own.to_bits()) >> host_bits == u64::from(other.to_bits()) >> host_bits
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = |address: u128| address.checked_shr(128 - self.prefix_bits).unwrap_or(0);
                shift(own.to_bits()) == shift(other.to_bits())
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_contains_its_addresses() {
        let contains = |network: &str, address: &str| {
            network.parse::<AllowedNetwork>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("192.168.1.20", "192.168.1.20"));
        assert!(!contains("192.168.1.20", "192.168.1.21"));
        assert!(contains("192.168.1.0/24", "192.168.1.200"));
        assert!(contains("10.0.0.0/8", "::ffff:10.9.9.9"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "8.8.8.8"));
        assert!(contains("fd00::/8", "fd12::1") && !contains("fd00::/8", "fe80::1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/x"] {
            assert!(wrong.parse::<AllowedNetwork>().is_err(), "{wrong}");
        }
    }
}
