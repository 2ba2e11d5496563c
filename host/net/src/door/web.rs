//! The checks that keep web pages away: `Host`, `Origin` and `Sec-Fetch-Site`.
//!
//! A page in a browser can send requests to loopback addresses, and can make its own name resolve to them (DNS
//! rebinding). It can neither choose the `Host` and `Origin` of its requests nor know the server's token.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version};
use tightwad_core::sync;

use crate::http::error::ApiError;

/// A name in a configuration is neither a host name nor a web origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebName {
    /// The text has a scheme, a port or a path, or is empty.
    #[error("'{0}' is not a host name such as \"box.lan\". Write it without scheme, port and path.")]
    Host(String),
    /// The text is not a scheme, a host and an optional port.
    #[error("'{0}' is not a web origin such as \"http://localhost:5173\". Write scheme, host and port only.")]
    Origin(String),
}

/// The host names and web origins that may use a server, beside its own.
#[derive(Debug, Default)]
pub struct WebNames(RwLock<Arc<Names>>);

#[derive(Debug, Default)]
struct Names {
    /// In lower case, without ports.
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl WebNames {
    /// Allows `hosts` in the header `Host`, and web pages of `origins`.
    ///
    /// # Errors
    ///
    /// [`InvalidWebName`] names the first invalid text.
    pub fn new(hosts: &[String], origins: &[String]) -> Result<Self, InvalidWebName> {
        let host = |text: &String| host_name(text).ok_or_else(|| InvalidWebName::Host(text.clone()));
        let origin = |text: &String| normal_origin(text).ok_or_else(|| InvalidWebName::Origin(text.clone()));
        let hosts = hosts.iter().map(host).collect::<Result<_, _>>()?;
        let origins = origins.iter().map(origin).collect::<Result<_, _>>()?;
        Ok(Self(RwLock::new(Arc::new(Names { hosts, origins }))))
    }

    /// Takes the names of `other`. They apply from the next request on.
    pub fn replace(&self, other: &Self) {
        let names = other.current();
        *sync::write(&self.0) = names;
    }

    fn current(&self) -> Arc<Names> {
        sync::read(&self.0).clone()
    }
}

fn host_name(text: &str) -> Option<String> {
    let literal = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let is_address = literal.is_some_and(|literal| literal.parse::<IpAddr>().is_ok());
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = !text.is_empty() && text.bytes().all(is_letter);
    (is_address || is_name).then(|| text.to_ascii_lowercase())
}

/// An origin in lower case and without the default port of its scheme.
fn normal_origin(text: &str) -> Option<String> {
    let (scheme, authority) = text.split_once("://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let host = authority.parse::<Authority>().ok().and_then(|authority| host_name(authority.host()));
    let is_origin = !scheme.is_empty() && host.is_some() && !authority.contains('@');
    is_origin.then(|| format!("{scheme}://{}", without_default_port(authority, scheme)).to_ascii_lowercase())
}

fn without_default_port<'a>(authority: &'a str, scheme: &str) -> &'a str {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// The origin of a request that passed the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A program, or a page of this server.
    Direct,
    /// A page of an allowed origin. Its browser asks for CORS headers.
    AllowedOrigin,
}

/// Checks `Host`, `Origin` and `Sec-Fetch-Site`. `bound` is the server's own address.
pub(crate) fn check(
    request: &Request,
    names: &WebNames,
    bound: SocketAddr,
    is_authenticated: bool,
) -> Result<Caller, ApiError> {
    let authority = authority(request)?;
    let names = names.current();
    if let Some(authority) = &authority
        && !is_authenticated
        && !is_own_host(authority.host(), &names, bound.ip())
    {
        return Err(ApiError::misdirected(format!(
            "'{}' is not a name of this server. Use its address, add the name to `hosts` in tw.serve, or set a token.",
            authority.host()
        )));
    }
    check_origin(request.headers(), authority.as_ref(), &names)
}

/// The host and port that the client asked for. `None`: a client of HTTP/1.0 sent none.
fn authority(request: &Request) -> Result<Option<Authority>, ApiError> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => Ok(None),
        (Some(host), None) => {
            let authority = Authority::try_from(host.as_bytes());
            authority
                .map(Some)
                .map_err(|_| ApiError::invalid(None, "the header `Host` is not a name or an address"))
        }
        _ => Err(ApiError::invalid(None, "a request needs one header `Host`")),
    }
}

fn is_own_host(host: &str, names: &Names, bound: IpAddr) -> bool {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match literal.parse::<IpAddr>() {
        Ok(address)
            if address.to_canonical().is_loopback() || address.to_canonical() == bound.to_canonical() =>
        {
            true
        }
        _ => {
            host.eq_ignore_ascii_case("localhost")
                || names.hosts.iter().any(|name| host.eq_ignore_ascii_case(name))
        }
    }
}

fn check_origin(
    headers: &HeaderMap,
    authority: Option<&Authority>,
    names: &Names,
) -> Result<Caller, ApiError> {
    if let Some(origin) = headers.get(ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        let normal = normal_origin(text);
        if normal.as_ref().is_some_and(|origin| names.origins.contains(origin)) {
            return Ok(Caller::AllowedOrigin);
        }
        if !normal.is_some_and(|origin| authority.is_some_and(|authority| is_same_origin(&origin, authority)))
        {
            return Err(ApiError::forbidden(&format!(
                "a web page of the origin '{text}' must not use this server. Add it to `origins` in tw.serve."
            )));
        }
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(ApiError::forbidden(
            "a web page of another site must not use this server. Add its origin to `origins` in tw.serve.",
        ));
    }
    Ok(Caller::Direct)
}

fn is_same_origin(origin: &str, authority: &Authority) -> bool {
    let Some((scheme @ ("http" | "https"), host)) = origin.split_once("://") else { return false };
    without_default_port(authority.as_str(), scheme).eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;

    use super::*;

    fn verdict(headers: &[(&str, &str)], is_authenticated: bool) -> Result<Caller, StatusCode> {
        let mut request = axum::http::Request::builder().uri("/v1/models");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let names = WebNames::new(&["Box.lan".to_owned()], &["http://localhost:5173".to_owned()]).unwrap();
        let bound = "192.168.1.5:8088".parse().unwrap();
        check(&request, &names, bound, is_authenticated).map_err(|error| error.status())
    }

    #[test]
    fn host_must_be_the_servers_own_without_token() {
        for host in
            ["127.0.0.1:8088", "127.1.2.3", "[::1]:8088", "LOCALHOST:9", "192.168.1.5:1", "box.LAN:8088"]
        {
            assert_eq!(verdict(&[("host", host)], false), Ok(Caller::Direct), "{host}");
        }
        for host in
            ["evil.example:8088", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.6", "[fe80::1]"]
        {
            assert_eq!(verdict(&[("host", host)], false), Err(StatusCode::MISDIRECTED_REQUEST), "{host}");
            assert_eq!(verdict(&[("host", host)], true), Ok(Caller::Direct), "{host}");
        }
        for headers in
            [&[][..], &[("host", "")], &[("host", "a b")], &[("host", "localhost"), ("host", "localhost")]]
        {
            assert_eq!(verdict(headers, true), Err(StatusCode::BAD_REQUEST), "{headers:?}");
        }
    }

    #[test]
    fn origin_must_be_the_servers_own_or_allowed() {
        let with = |host: &str, origin: &str| verdict(&[("host", host), ("origin", origin)], true);
        assert_eq!(with("localhost:8088", "http://localhost:8088"), Ok(Caller::Direct));
        assert_eq!(with("box.lan", "https://box.lan:443"), Ok(Caller::Direct));
        assert_eq!(with("box.lan:80", "http://BOX.lan"), Ok(Caller::Direct));
        assert_eq!(with("localhost:8088", "HTTP://localhost:5173"), Ok(Caller::AllowedOrigin));
        for origin in
            ["null", "", "http://localhost:5174", "https://localhost:5173", "http://evil.example", "file://"]
        {
            assert_eq!(with("localhost:8088", origin), Err(StatusCode::FORBIDDEN), "{origin}");
        }
    }

    #[test]
    fn requests_of_other_sites_need_an_allowed_origin() {
        let with = |site: &str, origin: Option<&str>| {
            let mut headers = vec![("host", "localhost:8088"), ("sec-fetch-site", site)];
            headers.extend(origin.map(|origin| ("origin", origin)));
            verdict(&headers, false)
        };
        assert_eq!(with("cross-site", None), Err(StatusCode::FORBIDDEN));
        assert_eq!(with("cross-site", Some("http://localhost:5173")), Ok(Caller::AllowedOrigin));
        for site in ["none", "same-origin"] {
            assert_eq!(with(site, None), Ok(Caller::Direct));
        }
    }

    #[test]
    fn invalid_names_are_refused() {
        let new = |host: &str, origin: &str| WebNames::new(&[host.to_owned()], &[origin.to_owned()]);
        assert!(new("box.lan", "http://localhost:5173/").is_ok());
        assert!(new("[fd00::1]", "tauri://localhost").is_ok());
        for host in ["", "box.lan:80", "http://box.lan", "box.lan/x", "*"] {
            assert!(matches!(new(host, "http://a"), Err(InvalidWebName::Host(_))), "{host}");
        }
        for origin in ["*", "localhost:5173", "http://", "http://a/b", "null", "http://a@b"] {
            assert!(matches!(new("a", origin), Err(InvalidWebName::Origin(_))), "{origin}");
        }
    }
}
