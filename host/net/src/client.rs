//! HTTP clients.
//!
//! [`machine_client`] reaches other tightwad machines directly. [`server_client`] reaches other people's
//! servers, which may be on the internet.

use std::net::IpAddr;
use std::sync::Once;

use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, RequestBuilder};
use tightwad_core::Token;

use crate::roots::certificates;
use crate::scoped_host::{Resolver, SUFFIX};

/// A client for nodes, workers, seeders and endpoints of tightwad.
///
/// The client ignores proxy variables, because a bearer token must not reach a proxy and proxies break
/// tunnels. The client follows no redirects, because a machine must not send its caller elsewhere.
pub fn machine_client() -> ClientBuilder {
    base_builder().no_proxy().redirect(Policy::none())
}

/// A client for the text server or web server at `url`. The variables `HTTP_PROXY`, `HTTPS_PROXY` and
/// `NO_PROXY` apply to servers on the internet. The client reaches servers of the local network directly.
pub fn server_client(url: &str) -> ClientBuilder {
    if is_local(url) { base_builder().no_proxy() } else { base_builder() }
}

#[allow(clippy::disallowed_methods)] // Every client starts here.
fn base_builder() -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    // The call fails when a provider is already installed, which serves as well.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder()
        .tcp_nodelay(true)
        .dns_resolver(Resolver)
        .tls_certs_only(certificates().iter().cloned())
}

/// Adds the bearer token, if any.
pub fn authorized(request: RequestBuilder, token: Option<&Token>) -> RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token.secret()),
        None => request,
    }
}

/// Name suffixes that the public DNS does not have. Sources: RFC 6762, RFC 8375, RFC 9476 and common home
/// routers.
const LOCAL_SUFFIXES: [&str; 7] =
    [".local", ".lan", ".home.arpa", ".internal", ".localhost", ".localdomain", SUFFIX];

/// True for loopback and private addresses, and for names without a public domain.
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
        Err(_) => !host.contains('.') || LOCAL_SUFFIXES.iter().any(|suffix| host.ends_with(suffix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_local_separates_local_servers_from_the_internet() {
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
    fn clients_build() {
        assert!(machine_client().build().is_ok());
        assert!(server_client("https://api.example.com").build().is_ok());
    }
}
