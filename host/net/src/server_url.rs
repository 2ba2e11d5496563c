//! The addresses of other machines' servers.
//!
//! Invariant: a [`ServerUrl`] has a scheme, a host, perhaps a port, and a path that does not end with `/` or
//! `/v1`. It has no user name, password, query or fragment, so that it can be shown.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use reqwest::header::HOST;
use reqwest::{Client, Method, RequestBuilder, Url};

use crate::scoped_host;

/// The text is not the address of a server. A message reads like `the address MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// The scheme is missing or unknown.
    #[error("must begin with http:// or https://, not '{0}'")]
    Scheme(String),
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
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    /// Parses `http://HOST:PORT`, with or without scheme, trailing slash and `/v1`. A link-local host can
    /// name its network interface, as in `http://[fe80::1%eth0]:7710` (RFC 6874: `%25eth0`).
    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let text = text.trim();
        let (scheme, rest) =
            text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
        let (authority, path) = rest.split_at(rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len()));
        // Secrets are looked for first, because the other errors repeat the text.
        if let Some((_, host)) = authority.rsplit_once('@') {
            return Err(InvalidUrl::Credentials(host.to_owned()));
        }
        if let Some((before, _)) = text.split_once(['?', '#']) {
            return Err(InvalidUrl::Query(before.to_owned()));
        }
        let scheme = match scheme.map(str::to_ascii_lowercase) {
            None if ends_with_port(authority) => "http".to_owned(),
            Some(scheme) if matches!(scheme.as_str(), "http" | "https") => scheme,
            _ => return Err(InvalidUrl::Scheme(text.to_owned())),
        };
        let zone = split_zone(authority);
        let authority = zone.as_ref().map_or(authority.to_owned(), |zone| zone.authority.clone());
        let syntax = |reason: String| InvalidUrl::Syntax { url: text.to_owned(), reason };
        let url = Url::parse(&format!("{scheme}://{authority}{path}"));
        let url = url.map_err(|error| syntax(error.to_string()))?;
        let shown = without_version(url.as_str()).to_owned();
        let Some(zone) = zone else { return Ok(Self { base: shown.clone(), shown, host_header: None }) };
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
        })
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
        Self { base: trim(self.base), shown: trim(self.shown), host_header: self.host_header }
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
    fn unusable_address_is_refused_without_its_secrets() {
        for (text, expected) in [
            ("x", "must begin with http:// or https://, not 'x'"),
            ("", "must begin with http:// or https://, not ''"),
            ("ftp://h:1", "must begin with http:// or https://, not 'ftp://h:1'"),
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
