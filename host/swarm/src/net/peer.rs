//! The addresses of peers.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

/// A source of a model: a seeder, or a web seed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A seeder: `http://HOST:PORT`.
    Seeder(Url),
    /// The complete file on a web server that supports range requests.
    WebSeed(Url),
}

/// The text is not the address of a peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerAddressError {
    /// The text is not a URL.
    #[error("'{0}' is not an address such as http://192.168.1.20:7710: {1}")]
    InvalidUrl(String, String),
    /// The URL has an unsupported scheme.
    #[error("'{0}' is neither http:// nor https://")]
    UnsupportedScheme(String),
}

impl Peer {
    /// The seeder at `text`: `HOST:PORT` or `http://HOST:PORT`.
    ///
    /// # Errors
    ///
    /// When `text` is not such an address.
    pub fn seeder(text: &str) -> Result<Self, PeerAddressError> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = parse_url(&full)?;
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self::Seeder(url))
    }

    /// The web seed at `text`, the URL of a file.
    ///
    /// # Errors
    ///
    /// When `text` is not such an address.
    pub fn web_seed(text: &str) -> Result<Self, PeerAddressError> {
        parse_url(text).map(Self::WebSeed)
    }

    /// A seeder from peer exchange (PEX). Only a plain IP address and port count, because the sender is not
    /// trusted.
    pub(crate) fn from_exchange(text: &str) -> Option<Self> {
        let Ok(Self::Seeder(url)) = Self::seeder(text) else { return None };
        let host: IpAddr = url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
        let is_plain = url.path() == "/" && url.username().is_empty() && url.password().is_none();
        let is_valid = url.scheme() == "http" && is_plain && !host.is_unspecified() && !host.is_multicast();
        is_valid.then_some(Self::Seeder(url))
    }

    /// The URL of `path` at this seeder. For a web seed, the URL of its file.
    pub(crate) fn url(&self, path: &str) -> Url {
        match self {
            Self::Seeder(url) => {
                let mut full = url.clone();
                full.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
                full
            }
            Self::WebSeed(url) => url.clone(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeder(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::WebSeed(url) => {
                // The query string of a web seed can contain a key.
                let mut public_url = url.clone();
                public_url.set_query(None);
                f.write_str(public_url.as_str())
            }
        }
    }
}

fn parse_url(text: &str) -> Result<Url, PeerAddressError> {
    let url =
        Url::parse(text).map_err(|error| PeerAddressError::InvalidUrl(text.into(), error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(PeerAddressError::UnsupportedScheme(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeder_accepts_addresses_and_urls() {
        let peer = Peer::seeder("10.0.0.1:7710").unwrap();
        assert_eq!(peer.to_string(), "http://10.0.0.1:7710");
        assert_eq!(peer, Peer::seeder("http://10.0.0.1:7710/").unwrap());
        assert_eq!(peer.url("v1/swarm").as_str(), "http://10.0.0.1:7710/v1/swarm");
        let below = Peer::seeder("http://host/models/?x=1").unwrap();
        assert_eq!(below.url("v1/swarm").as_str(), "http://host/models/v1/swarm");
        for wrong in ["", "ftp://host/x", "http://"] {
            assert!(Peer::seeder(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn from_exchange_accepts_plain_addresses_only() {
        assert!(Peer::from_exchange("http://10.0.0.1:7710").is_some());
        assert!(Peer::from_exchange("http://[fd00::1]:7710").is_some());
        for wrong in [
            "http://name:80",
            "http://a:b@10.0.0.1:1",
            "http://10.0.0.1:1/path",
            "http://0.0.0.0:1",
            "file:///etc/passwd",
            "http://224.0.0.1:1",
        ] {
            assert!(Peer::from_exchange(wrong).is_none(), "{wrong}");
        }
    }
}
