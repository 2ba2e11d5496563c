//! Where a model may be had.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

/// Where a model may be had: another machine's seeder, or a file on any web server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A seeder: `http://HOST:PORT`.
    Seeder(Url),
    /// The whole file on a web server that knows range requests.
    File(Url),
}

/// Why a text is no peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No address.
    #[error("'{0}' is no address such as http://192.168.1.20:7710: {1}")]
    NoUrl(String, String),
    /// Something that is not spoken.
    #[error("'{0}' is neither http:// nor https://")]
    Scheme(String),
}

impl Peer {
    /// The seeder at `text`: `HOST:PORT` or `http://HOST:PORT`.
    ///
    /// # Errors
    ///
    /// When `text` is no such address.
    pub fn seeder(text: &str) -> Result<Self, PeerError> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = parsed(&full)?;
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self::Seeder(url))
    }

    /// The file at `text`, a web address.
    ///
    /// # Errors
    ///
    /// When `text` is no such address.
    pub fn file(text: &str) -> Result<Self, PeerError> {
        parsed(text).map(Self::File)
    }

    /// A seeder that another peer told of: only a bare address and port, for nobody vouches for it.
    pub(crate) fn told(text: &str) -> Option<Self> {
        let Ok(Self::Seeder(url)) = Self::seeder(text) else { return None };
        let host: IpAddr = url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
        let bare = url.path() == "/" && url.username().is_empty() && url.password().is_none();
        let fit = url.scheme() == "http" && bare && !host.is_unspecified() && !host.is_multicast();
        fit.then_some(Self::Seeder(url))
    }

    /// The address of `path` at this seeder; the file's own address for a file.
    pub(crate) fn at(&self, path: &str) -> Url {
        match self {
            Self::Seeder(url) => {
                let mut full = url.clone();
                full.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
                full
            }
            Self::File(url) => url.clone(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeder(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::File(url) => {
                // Query strings of web servers may carry keys.
                let mut shown = url.clone();
                shown.set_query(None);
                f.write_str(shown.as_str())
            }
        }
    }
}

fn parsed(text: &str) -> Result<Url, PeerError> {
    let url = Url::parse(text).map_err(|error| PeerError::NoUrl(text.into(), error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(PeerError::Scheme(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let peer = Peer::seeder("10.0.0.1:7710").unwrap();
        assert_eq!(peer.to_string(), "http://10.0.0.1:7710");
        assert_eq!(peer, Peer::seeder("http://10.0.0.1:7710/").unwrap());
        assert_eq!(peer.at("v1/swarm").as_str(), "http://10.0.0.1:7710/v1/swarm");
        let below = Peer::seeder("http://host/models/?x=1").unwrap();
        assert_eq!(below.at("v1/swarm").as_str(), "http://host/models/v1/swarm");
        for wrong in ["", "ftp://host/x", "http://"] {
            assert!(Peer::seeder(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hearsay_is_a_bare_address_only() {
        assert!(Peer::told("http://10.0.0.1:7710").is_some());
        assert!(Peer::told("http://[fd00::1]:7710").is_some());
        for wrong in [
            "http://name:80",
            "http://a:b@10.0.0.1:1",
            "http://10.0.0.1:1/path",
            "http://0.0.0.0:1",
            "file:///etc/passwd",
            "http://224.0.0.1:1",
        ] {
            assert!(Peer::told(wrong).is_none(), "{wrong}");
        }
    }
}
