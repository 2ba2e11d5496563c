//! The certificate authorities that `https://` servers are checked against.

use std::sync::OnceLock;

use reqwest::Certificate;

/// Names of the variables that add authorities, as OpenSSL reads them.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The system's authorities, and those of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Read once a process.
///
/// A machine without authorities has an empty list: plain HTTP works there, and `https://` fails with the
/// reason.
pub(crate) fn roots() -> &'static [Certificate] {
    static ROOTS: OnceLock<Vec<Certificate>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut found = rustls_native_certs::load_native_certs();
        if VARIABLES.iter().any(|name| std::env::var_os(name).is_some()) {
            // With a variable, only its certificates were loaded. The system's count as well.
            for folder in openssl_probe::candidate_cert_dirs() {
                found.certs.extend(rustls_native_certs::load_certs_from_paths(None, Some(folder)).certs);
            }
        }
        for error in &found.errors {
            tracing::warn!(%error, "a certificate authority cannot be read; see SSL_CERT_FILE and SSL_CERT_DIR");
        }
        found.certs.iter().filter_map(|certificate| Certificate::from_der(certificate).ok()).collect()
    })
}
