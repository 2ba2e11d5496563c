//! Which machines may use a worker.

use std::net::IpAddr;
use std::str::FromStr;

/// A text is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no address such as 192.168.1.20 and no network such as 192.168.1.0/24")]
pub struct InvalidNetwork(pub String);

/// An address, or a network such as `192.168.1.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    network: IpAddr,
    /// Leading bits that must be equal.
    bits: u32,
}

impl FromStr for Allowed {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let wrong = || InvalidNetwork(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
        let network: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { network, bits })
    }
}

impl Allowed {
    /// True when `address` is this one, or lies in this network.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let rest = 32 - self.bits;
                u64::from(own.to_bits()) >> rest == u64::from(other.to_bits()) >> rest
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = |address: u128| address.checked_shr(128 - self.bits).unwrap_or(0);
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
    fn networks_have_their_addresses() {
        let has =
            |network: &str, address: &str| network.parse::<Allowed>().unwrap().has(address.parse().unwrap());
        assert!(has("192.168.1.20", "192.168.1.20"));
        assert!(!has("192.168.1.20", "192.168.1.21"));
        assert!(has("192.168.1.0/24", "192.168.1.200"));
        assert!(has("10.0.0.0/8", "::ffff:10.9.9.9"));
        assert!(!has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("0.0.0.0/0", "8.8.8.8"));
        assert!(has("fd00::/8", "fd12::1") && !has("fd00::/8", "fe80::1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/x"] {
            assert!(wrong.parse::<Allowed>().is_err(), "{wrong}");
        }
    }
}
