//! The certificate of an endpoint, from files.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tightwad_core::sync;

use crate::tls::identity::certified_key;
use crate::tls::provider::provider;

/// The time between two looks at the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The files of a certificate, in PEM (RFC 7468).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePaths {
    /// The certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The files have no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFileError {
    /// A file cannot be read, or has no part of the kind.
    #[error("{} has no {kind} in PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the file should have.
        kind: &'static str,
        /// The parser's error.
        reason: String,
    },
    /// The key does not belong to the certificate, or its kind is unknown.
    #[error("the key {} does not fit the certificate {}: {reason}", key.display(), cert.display())]
    Key {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
        /// The TLS library's error.
        reason: String,
    },
}

/// The certificate of an endpoint. New connections use the files as they are: after a renewal, no restart is needed.
#[derive(Debug)]
pub struct CertificateFiles {
    paths: CertificatePaths,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    certificate: Arc<CertifiedKey>,
    /// The times at which the files last changed.
    modified: Option<(SystemTime, SystemTime)>,
    checked: Instant,
}

impl CertificateFiles {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`CertificateFileError`] if the files have no usable certificate.
    pub fn load(paths: CertificatePaths) -> Result<Self, CertificateFileError> {
        let modified = paths.modified().ok();
        let certificate = Arc::new(paths.read()?);
        Ok(Self { paths, current: Mutex::new(Current { certificate, modified, checked: Instant::now() }) })
    }

    /// The certificate of a new connection. Files that are damaged, or of which only one has changed, leave the old
    /// certificate in use.
    fn current(&self) -> Arc<CertifiedKey> {
        let mut current = sync::lock(&self.current);
        if current.checked.elapsed() >= CHECK_INTERVAL {
            current.checked = Instant::now();
            let modified = self.paths.modified().ok();
            if modified.is_some() && modified != current.modified {
                current.modified = modified;
                match self.paths.read() {
                    Ok(certificate) => {
                        current.certificate = Arc::new(certificate);
                        tracing::info!(cert = %self.paths.cert.display(), "the certificate was replaced");
                    }
                    Err(error) => tracing::warn!("{error}. The old certificate stays in use."),
                }
            }
        }
        current.certificate.clone()
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl CertificatePaths {
    fn modified(&self) -> io::Result<(SystemTime, SystemTime)> {
        Ok((fs::metadata(&self.cert)?.modified()?, fs::metadata(&self.key)?.modified()?))
    }

    fn read(&self) -> Result<CertifiedKey, CertificateFileError> {
        let pem = |path: &PathBuf, kind, reason: String| CertificateFileError::Pem {
            path: path.clone(),
            kind,
            reason,
        };
        let chain =
            CertificateDer::pem_file_iter(&self.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| pem(&self.cert, "certificate", error.to_string()))?;
        if chain.is_empty() {
            return Err(pem(&self.cert, "certificate", "no section CERTIFICATE".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|error| pem(&self.key, "private key", error.to_string()))?;
        certified_key(chain, key, provider()).map_err(|error| CertificateFileError::Key {
            key: self.key.clone(),
            cert: self.cert.clone(),
            reason: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Writes a certificate for `name` and returns its bytes.
    fn write(folder: &Path, name: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    /// The certificate that a connection gets now, as if the last look were long ago.
    fn now(files: &CertificateFiles) -> Vec<u8> {
        sync::lock(&files.current).checked -= CHECK_INTERVAL;
        files.current().cert[0].to_vec()
    }

    #[test]
    fn renewed_files_are_used_and_damaged_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let paths =
            CertificatePaths { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let first = write(folder.path(), "box.lan");
        let files = CertificateFiles::load(paths.clone()).unwrap();
        assert_eq!(now(&files), first);
        let second = write(folder.path(), "box.lan");
        assert_eq!(now(&files), second);
        fs::write(&paths.cert, "damaged").unwrap();
        assert_eq!(now(&files), second);
        let error = CertificateFiles::load(paths.clone()).unwrap_err().to_string();
        assert!(error.contains("cert.pem has no certificate in PEM"), "{error}");
        // Only one of two files was replaced.
        let key = fs::read(&paths.key).unwrap();
        write(folder.path(), "box.lan");
        fs::write(&paths.key, key).unwrap();
        assert_eq!(now(&files), second);
        let error = CertificateFiles::load(paths).unwrap_err().to_string();
        assert!(error.contains("does not fit the certificate"), "{error}");
    }
}
