//! The addresses of peers.

use std::fmt;
use std::hash::{Hash, Hasher};

use reqwest::Url;
use tightwad_net::ServerUrl;
use tightwad_net::tls::{Fingerprint, MACHINE_SCHEME};

/// Largest number of peers at one address that the user did not name: one machine with many ports must not push out
/// the others.
pub const MAX_PEERS_PER_ADDRESS: usize = 8;

/// A source of a model: a seeder, or a web seed. Peers are equal if their addresses are, with or without a fingerprint.
#[derive(Clone)]
pub enum Peer {
    /// A seeder: `tightwad://HOST:PORT`, perhaps with the fingerprint of its key as the fragment, or `http://HOST:PORT`
    /// without encryption.
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
    #[error(
        "'{0}' has an unknown scheme: seeders have tightwad:// or http://, web seeds have http:// or https://"
    )]
    UnsupportedScheme(String),
    /// The address of an encrypted seeder has no port.
    #[error("'{0}' has no port: write tightwad://HOST:PORT")]
    NoPort(String),
    /// The fragment is not a fingerprint.
    #[error("the address has '#' without a fingerprint: {0}. Copy the whole address")]
    Fingerprint(String),
    /// The URL of a seeder has a user name or a password.
    #[error("'{0}' has a user name or a password: give the seeder's token instead")]
    Credentials(String),
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Peer {
    /// The kind and the address without its fragment.
    fn key(&self) -> (bool, &str) {
        let (Self::Seeder(url) | Self::WebSeed(url)) = self;
        let address = url.as_str().split('#').next().unwrap_or_default();
        (matches!(self, Self::Seeder(_)), address)
    }

    /// The seeder at `text`: `tightwad://HOST:PORT`, `http://HOST:PORT` or `HOST:PORT`.
    ///
    /// # Errors
    ///
    /// When `text` is not such an address.
    pub fn seeder(text: &str) -> Result<Self, PeerAddressError> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = parse_url(&full, &[MACHINE_SCHEME, "http", "https"])?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(PeerAddressError::Credentials(without_credentials(&full)));
        }
        url.set_query(None);
        if url.scheme() != MACHINE_SCHEME {
            url.set_fragment(None);
        } else if url.port().is_none() {
            return Err(PeerAddressError::NoPort(full));
        } else if let Some(fragment) = url.fragment() {
            fragment
                .parse::<Fingerprint>()
                .map_err(|error| PeerAddressError::Fingerprint(error.to_string()))?;
        }
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
        parse_url(text, &["http", "https"]).map(Self::WebSeed)
    }

    /// Whether the connections are encrypted by this program.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Seeder(url) if url.scheme() == MACHINE_SCHEME)
    }

    /// True for a seeder whose connections cross a network without encryption.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        matches!(self, Self::Seeder(url) if url.as_str().parse::<ServerUrl>().is_ok_and(|url| url.is_exposed()))
    }

    /// HOST:PORT and the fingerprint of an encrypted seeder, if its address names one.
    pub(crate) fn pin(&self) -> Option<(String, Fingerprint)> {
        let Self::Seeder(url) = self else { return None };
        Some((url.authority().to_owned(), url.fragment()?.parse().ok()?))
    }

    /// The address with the fingerprint, as a user writes it.
    #[must_use]
    pub fn address(&self) -> String {
        match self.pin() {
            Some((_, fingerprint)) => format!("{self}#{fingerprint}"),
            None => self.to_string(),
        }
    }

    /// The name or the address of the machine.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let (Self::Seeder(url) | Self::WebSeed(url)) = self;
        url.host_str()
    }

    /// The URL of `path` at this seeder. For a web seed, the URL of its file.
    pub(crate) fn url(&self, path: &str) -> Url {
        match self {
            Self::Seeder(url) => {
                let mut full = url.clone();
                full.set_fragment(None);
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
            Self::Seeder(_) => f.write_str(self.key().1.trim_end_matches('/')),
            Self::WebSeed(url) => {
                // The query string of a web seed can contain a key.
                let mut public_url = url.clone();
                public_url.set_query(None);
                f.write_str(&without_credentials(public_url.as_str()))
            }
        }
    }
}

/// As [`fmt::Display`]: the fields of the URL can contain a password.
impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text of a URL without its user name and password. Works for invalid URLs too.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, public)| public))
        }
        None => url.rsplit_once('@').map_or(url, |(_, public)| public).to_owned(),
    }
}

fn parse_url(text: &str, schemes: &[&str]) -> Result<Url, PeerAddressError> {
    let url = Url::parse(text)
        .map_err(|error| PeerAddressError::InvalidUrl(without_credentials(text), error.to_string()))?;
    if schemes.contains(&url.scheme()) {
        Ok(url)
    } else {
        Err(PeerAddressError::UnsupportedScheme(without_credentials(text)))
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
        let fingerprint = "ab".repeat(32);
        let pinned = Peer::seeder(&format!("tightwad://10.0.0.1:7710#{fingerprint}")).unwrap();
        let plain = Peer::seeder("tightwad://10.0.0.1:7710").unwrap();
        assert_eq!(pinned, plain);
        assert_eq!(pinned.to_string(), "tightwad://10.0.0.1:7710");
        assert_eq!(pinned.address(), format!("tightwad://10.0.0.1:7710#{fingerprint}"));
        assert_eq!(pinned.pin(), Some(("10.0.0.1:7710".to_owned(), fingerprint.parse().unwrap())));
        assert_eq!(pinned.url("v1/swarm").as_str(), "tightwad://10.0.0.1:7710/v1/swarm");
        for wrong in ["", "ftp://host/x", "http://", "tightwad://host", "tightwad://host:1#ab"] {
            assert!(Peer::seeder(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_never_show_credentials() {
        let web_seed = Peer::web_seed("https://user:secret@host/m.gguf?key=secret").unwrap();
        assert_eq!(web_seed.to_string(), "https://host/m.gguf");
        assert_eq!(format!("{web_seed:?}"), "https://host/m.gguf");
        for wrong in [
            "http://user:secret@host:7712",
            "http://secret@host",
            "user:secret@host:7712",
            "ftp://user:secret@host/x",
            "http://user:sec@ret@ho st/x",
        ] {
            let error = Peer::seeder(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("sec"), "{error}");
        }
    }
}
