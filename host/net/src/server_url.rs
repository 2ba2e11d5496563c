//! The addresses of other machines' servers.
//!
//! Invariant: a [`ServerUrl`] has a scheme, a host, perhaps a port, and a path that does not end with `/` or
//! `/v1`. It has no user name, password, query or fragment, so that it can be shown. The fragment of `tightwad://` is the
//! fingerprint, which is kept apart.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use reqwest::header::HOST;
use reqwest::{Client, Method, RequestBuilder, Url};

use crate::scoped_host;
use crate::tls::{Fingerprint, InvalidFingerprint, MACHINE_SCHEME};

/// The text is not the address of a server. A message reads like `the address MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// The scheme is missing or unknown.
    #[error("must begin with tightwad://, http:// or https://, not '{0}'")]
    Scheme(String),
    /// The address is that of a machine, where a text server is expected.
    #[error("'{0}' is that of a node, worker or seeder")]
    Machine(String),
    /// The address of a machine has no port.
    #[error("needs a port, such as tightwad://HOST:7710, not '{0}'")]
    Port(String),
    /// The fragment of a machine's address is not a fingerprint.
    #[error("has '#' without a fingerprint: {0}. Copy the whole address")]
    Fingerprint(#[from] InvalidFingerprint),
    /// The text has a user name or a password. The value is the part after them.
    #[error("must not have a user name or a password before '{0}': set a token or an API key instead")]
    Credentials(String),
    /// The text has a query or a fragment. The value is the part before them.
    #[error("must end after '{0}', without '?' and '#'")]
    Query(String),
    /// This machine does not have the network interface.
    #[error("has the network interface '{0}', which this machine does not have")]
    Interface(String),
    /// The text is not a URL.
    #[error("'{url}' is not valid: {reason}")]
    Syntax {
        /// The text.
        url: String,
        /// The error of the URL parser.
        reason: String,
    },
}

/// The address of a node, a worker or a text server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// The URL for requests. A link-local host is written as in [`scoped_host`].
    base: String,
    /// The URL for people.
    shown: String,
    /// The `Host` header, if it differs from the host of `base`.
    host_header: Option<String>,
    /// The fingerprint of the machine's key, if the address names it.
    fingerprint: Option<Fingerprint>,
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    /// Parses `tightwad://HOST:PORT#FINGERPRINT`, or `http://HOST:PORT`, with or without scheme, trailing slash
    /// and `/v1`. A link-local host can name its network interface, as in `http://[fe80::1%eth0]:7710` (RFC 6874:
    /// `%25eth0`).
    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let Parts { scheme, authority, path, fingerprint } = Parts::split(text.trim())?;
        let zone = split_zone(authority);
        let authority = zone.as_ref().map_or(authority, |zone| &zone.authority);
        // The URL parser does this for http only.
        let authority = authority.to_ascii_lowercase();
        let syntax = |reason: String| InvalidUrl::Syntax { url: text.trim().to_owned(), reason };
        let url = Url::parse(&format!("{scheme}://{authority}{path}"));
        let url = url.map_err(|error| syntax(error.to_string()))?;
        let shown = without_version(url.as_str()).to_owned();
        let Some(zone) = zone else {
            return Ok(Self { base: shown.clone(), shown, host_header: None, fingerprint });
        };
        let literal = url.host_str().unwrap_or_default();
        let address: Result<Ipv6Addr, _> = literal.trim_matches(['[', ']']).parse();
        let address = address.map_err(|error| syntax(error.to_string()))?;
        let host = scoped_host::host_name(address, &zone.interface);
        let host = host.ok_or_else(|| InvalidUrl::Interface(zone.interface.clone()))?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self {
            base: shown.replacen(literal, &host, 1),
            shown: shown.replacen(literal, &format!("[{address}%25{}]", zone.interface), 1),
            host_header: Some(format!("{literal}{port}")),
            fingerprint,
        })
    }
}

/// The parts of an address.
struct Parts<'a> {
    scheme: String,
    authority: &'a str,
    path: &'a str,
    fingerprint: Option<Fingerprint>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text
            .split_once("://")
            .map_or((None, text), |(scheme, rest)| (Some(scheme.to_ascii_lowercase()), rest));
        let (authority, path) = rest.split_at(rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len()));
        // Secrets are looked for first, because the other errors repeat the text.
        if let Some((_, host)) = authority.rsplit_once('@') {
            return Err(InvalidUrl::Credentials(host.to_owned()));
        }
        let is_machine = scheme.as_deref() == Some(MACHINE_SCHEME);
        let (text, path, fingerprint) = match (text.split_once('#'), path.split_once('#')) {
            (Some((text, fingerprint)), Some((path, _))) if is_machine => {
                (text, path, Some(fingerprint.parse()?))
            }
            _ => (text, path, None),
        };
        if let Some((before, _)) = text.split_once(['?', '#']) {
            return Err(InvalidUrl::Query(before.to_owned()));
        }
        match scheme {
            None if ends_with_port(authority) => {
                Ok(Self { scheme: "http".to_owned(), authority, path, fingerprint })
            }
            Some(_) if is_machine && !ends_with_port(authority) => Err(InvalidUrl::Port(text.to_owned())),
            Some(scheme) if matches!(scheme.as_str(), "http" | "https" | MACHINE_SCHEME) => {
                Ok(Self { scheme, authority, path, fingerprint })
            }
            _ => Err(InvalidUrl::Scheme(text.to_owned())),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl ServerUrl {
    /// A request to `path`, which begins with `/`.
    pub fn request(&self, client: &Client, method: Method, path: &str) -> RequestBuilder {
        let request = client.request(method, format!("{}{path}", self.base));
        match &self.host_header {
            // The interface has a meaning on this machine only (RFC 6874, 3).
            Some(host) => request.header(HOST, host),
            None => request,
        }
    }

    /// The fingerprint of the machine's key; `None` if the address does not name it.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// True if connections cross a network without encryption.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let host = self.authority().rsplit_once(':').map_or(self.authority(), |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        let is_loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        self.base.starts_with("http://") && !is_loopback
    }

    /// True if this program encrypts the connections.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.base.split_once("://").is_some_and(|(scheme, _)| scheme == MACHINE_SCHEME)
    }

    /// The `Host` header, if it differs from the host of the URL.
    pub(crate) fn host_header(&self) -> Option<&str> {
        self.host_header.as_deref()
    }

    /// The address with the fingerprint, as a user writes it.
    #[must_use]
    pub fn address(&self) -> String {
        match self.fingerprint {
            Some(fingerprint) => format!("{self}#{fingerprint}"),
            None => self.to_string(),
        }
    }

    /// HOST:PORT.
    #[must_use]
    pub fn authority(&self) -> &str {
        let rest = self.base.split_once("://").map_or(self.base.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// The URL for requests, without a trailing slash.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// True when the path names a version of an API, such as `/v1beta/openai`.
    #[must_use]
    pub fn names_version(&self) -> bool {
        let path = self.base.split('/').skip(3);
        let is_version = |segment: &str| {
            segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        path.into_iter().any(is_version)
    }

    /// The same address without the last part of its path if that part is `segment`.
    #[must_use]
    pub fn without_segment(self, segment: &str) -> Self {
        let trim = |url: String| {
            let trimmed = url.strip_suffix(segment).and_then(|url| url.strip_suffix('/'));
            trimmed.map(str::to_owned).unwrap_or(url)
        };
        Self { base: trim(self.base), shown: trim(self.shown), ..self }
    }
}

/// True for HOST:PORT.
fn ends_with_port(authority: &str) -> bool {
    let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// `url` without trailing slashes and without `/v1` at its end.
fn without_version(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url).trim_end_matches('/')
}

/// An authority without its network interface, and the interface.
struct Zone {
    authority: String,
    interface: String,
}

/// Splits the network interface off `[ADDRESS%INTERFACE]:PORT`.
fn split_zone(authority: &str) -> Option<Zone> {
    let (literal, port) = authority.strip_prefix('[')?.split_once(']')?;
    let (address, interface) = literal.split_once('%')?;
    let interface = interface.strip_prefix("25").filter(|rest| !rest.is_empty()).unwrap_or(interface);
    Some(Zone { authority: format!("[{address}]{port}"), interface: interface.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<ServerUrl>().map_or_else(|error| format!("{error}"), |url| url.to_string())
    }

    #[test]
    fn address_is_normalized() {
        for (text, expected) in [
            ("http://h:7710", "http://h:7710"),
            ("h:7710", "http://h:7710"),
            ("10.0.0.2:7711/", "http://10.0.0.2:7711"),
            ("http://h:7710/", "http://h:7710"),
            ("http://h:7710/v1", "http://h:7710"),
            ("http://h:7710/v1/", "http://h:7710"),
            ("HTTP://H:7710", "http://h:7710"),
            (" http://h ", "http://h"),
            ("https://h:443/v1", "https://h"),
            ("http://[::1]:7710", "http://[::1]:7710"),
            ("[::1]:7710", "http://[::1]:7710"),
            ("http://h/api/v1", "http://h/api"),
            ("http://h/v1beta/openai", "http://h/v1beta/openai"),
            ("http://h/node/", "http://h/node"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
            assert_eq!(shown(expected), expected, "{text} changes when it is parsed again");
        }
    }

    #[test]
    fn address_of_a_machine_has_a_fingerprint() {
        let fingerprint = "ab".repeat(32);
        let text = format!("tightwad://Attic:7710#{fingerprint}");
        let url: ServerUrl = text.parse().unwrap();
        assert_eq!((url.base(), url.authority()), ("tightwad://attic:7710", "attic:7710"));
        assert_eq!(url.fingerprint(), Some(fingerprint.parse().unwrap()));
        assert_eq!(url.address().parse(), Ok(url.clone()));
        assert_eq!(url.to_string(), "tightwad://attic:7710");
        assert_eq!("tightwad://[::1]:80/v1".parse::<ServerUrl>().unwrap().base(), "tightwad://[::1]:80");
        for (text, expected) in [
            ("tightwad://h", "needs a port, such as tightwad://HOST:7710, not 'tightwad://h'"),
            (
                "tightwad://h:1#ab",
                "has '#' without a fingerprint: a fingerprint has 64 hexadecimal digits, not 2 characters",
            ),
            ("tightwad://h:1?pw", "must end after 'tightwad://h:1'"),
        ] {
            assert!(shown(text).starts_with(expected), "{text}: {}", shown(text));
        }
    }

    #[test]
    fn only_plain_connections_to_other_machines_are_exposed() {
        for (text, exposed) in [
            ("http://10.0.0.2:7710", true),
            ("attic:7710", true),
            ("http://[fd00::1]:1", true),
            ("http://127.0.0.1:7710", false),
            ("http://[::1]:7710", false),
            ("localhost:7710", false),
            ("https://attic", false),
            ("tightwad://10.0.0.2:7710", false),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().is_exposed(), exposed, "{text}");
        }
    }

    #[test]
    fn unusable_address_is_refused_without_its_secrets() {
        for (text, expected) in [
            ("x", "must begin with tightwad://, http:// or https://, not 'x'"),
            ("", "must begin with tightwad://, http:// or https://, not ''"),
            ("ftp://h:1", "must begin with tightwad://, http:// or https://, not 'ftp://h:1'"),
            (
                "http://user:pw@h:1/v1",
                "must not have a user name or a password before 'h:1': set a token or an API key instead",
            ),
            (
                "user:pw@h:1",
                "must not have a user name or a password before 'h:1': set a token or an API key instead",
            ),
            (
                "user:pw@h",
                "must not have a user name or a password before 'h': set a token or an API key instead",
            ),
            (
                "ftp://user:pw@h",
                "must not have a user name or a password before 'h': set a token or an API key instead",
            ),
            ("h?pw", "must end after 'h', without '?' and '#'"),
            ("http://h:7710?key=pw", "must end after 'http://h:7710', without '?' and '#'"),
            ("http://h:7710/v1#pw", "must end after 'http://h:7710/v1', without '?' and '#'"),
            ("http://h:99999", "'http://h:99999' is not valid: invalid port number"),
            ("http://", "'http://' is not valid: empty host"),
            (
                "http://[fe80::1%nothing0]:1",
                "has the network interface 'nothing0', which this machine does not have",
            ),
        ] {
            assert_eq!(shown(text), expected, "{text}");
            assert!(!shown(text).contains("pw"), "{text}");
        }
    }

    #[test]
    fn network_interface_is_shown_and_not_sent() {
        for text in ["http://[fe80::1%lo]:7710/v1", "http://[fe80::1%25lo]:7710"] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), "http://[fe80::1%25lo]:7710");
            let client = crate::client::machine_client().build().unwrap();
            let request = url.request(&client, Method::GET, "/health").build().unwrap();
            assert_eq!(request.url().as_str(), "http://fe80--1s1.ipv6-literal.net:7710/health");
            assert_eq!(request.headers()[HOST], "[fe80::1]:7710");
        }
    }

    #[test]
    fn version_in_the_path_is_found() {
        let names_version = |text: &str| text.parse::<ServerUrl>().unwrap().names_version();
        assert!(names_version("https://h/v1beta/openai") && names_version("https://h/api/paas/v4"));
        assert!(!names_version("https://h/v1") && !names_version("https://v1.h/api"));
        assert!(!names_version("https://h/vault"));
    }
}
