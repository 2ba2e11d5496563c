//! The certificate authorities for `https://` servers.

use std::sync::OnceLock;

use reqwest::Certificate;

/// Environment variables that add authorities. OpenSSL reads the same ones.
const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The authorities of the system, of `SSL_CERT_FILE` and of `SSL_CERT_DIR`. The process reads them once.
///
/// The list is empty on a machine without authorities: plain HTTP works there, and `https://` fails with an
/// error.
pub(crate) fn certificates() -> &'static [Certificate] {
    static CERTIFICATES: OnceLock<Vec<Certificate>> = OnceLock::new();
    CERTIFICATES.get_or_init(|| {
        let mut loaded = rustls_native_certs::load_native_certs();
        if CERTIFICATE_VARIABLES.iter().any(|name| std::env::var_os(name).is_some()) {
            // If a variable is set, the loader skips the system's authorities, so they are added here.
            for folder in openssl_probe::candidate_cert_dirs() {
                loaded.certs.extend(rustls_native_certs::load_certs_from_paths(None, Some(folder)).certs);
            }
        }
        for error in &loaded.errors {
            tracing::warn!(%error, "cannot read a certificate authority; check SSL_CERT_FILE and SSL_CERT_DIR");
        }
        loaded.certs.iter().filter_map(|certificate| Certificate::from_der(certificate).ok()).collect()
    })
}
