//! HTTP clients.
//!
//! Two kinds: one for other machines of tightwad, which nothing may come between, and one for servers that
//! belong to somebody else, which may be on the internet.

use std::net::IpAddr;
use std::sync::Once;

use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, RequestBuilder};
use tightwad_core::Token;

use crate::roots::roots;

/// A client for nodes, workers, seeders and endpoints of tightwad. Proxies of the environment are not used: a
/// bearer token must not reach them, and they break tunnels. Redirects are not followed: a machine must not send
/// its caller elsewhere.
pub fn machine_client() -> ClientBuilder {
    builder().no_proxy().redirect(Policy::none())
}

/// A client for the text server or web server at `url`. `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` count for
/// servers on the internet; servers of the local network are reached directly.
pub fn server_client(url: &str) -> ClientBuilder {
    if is_local(url) { builder().no_proxy() } else { builder() }
}

#[allow(clippy::disallowed_methods)] // The one place that may.
fn builder() -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    // Fails where a provider is installed already, which is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder().tcp_nodelay(true).tls_certs_only(roots().iter().cloned())
}

/// `request` with the token, where there is one.
pub fn authorized(request: RequestBuilder, token: Option<&Token>) -> RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token.secret()),
        None => request,
    }
}

/// Endings of names that the public DNS does not have (RFC 6762, 8375, 9476, and what home routers use).
const LOCAL_ENDINGS: [&str; 6] = [".local", ".lan", ".home.arpa", ".internal", ".localhost", ".localdomain"];

/// True for addresses of this machine and of private networks, and for names without a public domain.
#[must_use]
pub fn is_local(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_unspecified()
        }
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => !host.contains('.') || LOCAL_ENDINGS.iter().any(|ending| host.ends_with(ending)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_servers_are_told_from_those_on_the_internet() {
        for local in [
            "http://127.0.0.1:8080",
            "http://localhost:11434/v1",
            "http://LOCALHOST.:1",
            "http://192.168.1.20:8080",
            "http://10.1.2.3",
            "http://172.16.0.1",
            "http://[::1]:80",
            "http://[fd00::5]:80",
            "http://attic:8080",
            "http://attic.local",
            "https://box.home.arpa/v1",
        ] {
            assert!(is_local(local), "{local}");
        }
        for public in [
            "https://api.example.com",
            "http://8.8.8.8",
            "http://172.32.0.1",
            "http://[2001:db8::1]",
            "nonsense",
        ] {
            assert!(!is_local(public), "{public}");
        }
    }

    #[test]
    fn both_clients_can_be_built() {
        assert!(machine_client().build().is_ok());
        assert!(server_client("https://api.example.com").build().is_ok());
    }
}
