//! The addresses of peers.

use std::fmt;

use reqwest::Url;

/// Largest number of peers at one address that the user did not name: one machine with many ports must not push out
/// the others.
pub const MAX_PEERS_PER_ADDRESS: usize = 8;

/// A source of a model: a seeder, or a web seed.
#[derive(Clone, PartialEq, Eq, Hash)]
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
    /// The URL of a seeder has a user name or a password.
    #[error("'{0}' has a user name or a password: give the seeder's token instead")]
    Credentials(String),
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
        if !url.username().is_empty() || url.password().is_some() {
            return Err(PeerAddressError::Credentials(without_credentials(&full)));
        }
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

fn parse_url(text: &str) -> Result<Url, PeerAddressError> {
    let url = Url::parse(text)
        .map_err(|error| PeerAddressError::InvalidUrl(without_credentials(text), error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(PeerAddressError::UnsupportedScheme(without_credentials(text))),
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
