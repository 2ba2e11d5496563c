//! The key of this machine.
//!
//! Invariant: the file of the key is complete at all times, only its owner can read it, and this process never replaces
//! an existing one. Two processes that start at the same moment therefore use the same key.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tightwad_core::{random_hex, user_data_dir};

use crate::tls::fingerprint::Fingerprint;
use crate::tls::provider::provider;

const FILE_NAME: &str = "machine-key.pem";
/// The name in the certificate. Peers check the key and ignore the name.
const CERTIFICATE_NAME: &str = "tightwad";
/// Only the owner can read the key.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// The key of this machine, and a certificate that it signed itself.
#[derive(Debug, Clone)]
pub struct Identity {
    fingerprint: Fingerprint,
    certified: Arc<CertifiedKey>,
}

/// The reason why this machine has no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The user has no home directory.
    #[error("this machine's key needs a folder: set XDG_DATA_HOME or HOME")]
    NoFolder,
    /// The file cannot be read or written.
    #[error("cannot use the machine's key {}: {source}", path.display())]
    File {
        /// The file of the key.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// Other users can read the file.
    #[error("other users can read the machine's key {}: run chmod 600 on it, or delete it for a new key", .0.display())]
    Readable(PathBuf),
    /// The file has no private key.
    #[error("{} has no private key ({reason}): delete the file for a new key", path.display())]
    Damaged {
        /// The file of the key.
        path: PathBuf,
        /// The error of the parser.
        reason: String,
    },
}

impl Identity {
    /// The key of this user on this machine. The first call on a machine makes it.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if the file cannot be read or written, or if other users can read it.
    pub fn of_user() -> Result<Self, IdentityError> {
        Self::in_folder(&user_data_dir().ok_or(IdentityError::NoFolder)?)
    }

    /// The key in `folder`. Makes the folder and the key if they do not exist.
    ///
    /// # Errors
    ///
    /// As [`Self::of_user`].
    pub fn in_folder(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(FILE_NAME);
        let file_error = |source| IdentityError::File { path: path.clone(), source };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(folder, &path).map_err(file_error)?;
                fs::read_to_string(&path).map_err(file_error)?
            }
            text => text.map_err(file_error)?,
        };
        if fs::metadata(&path).map_err(file_error)?.mode() & 0o077 != 0 {
            return Err(IdentityError::Readable(path));
        }
        Self::from_pem(&text).map_err(|error| IdentityError::Damaged { path, reason: error.to_string() })
    }

    /// A new key that no file keeps.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Damaged`] if the system gives no randomness.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let new = || Self::from_pem(&KeyPair::generate()?.serialize_pem());
        new().map_err(|error| IdentityError::Damaged { path: PathBuf::new(), reason: error.to_string() })
    }

    fn from_pem(text: &str) -> Result<Self, rcgen::Error> {
        let key = KeyPair::from_pem(text)?;
        let mut params = CertificateParams::new([CERTIFICATE_NAME.to_owned()])?;
        params.distinguished_name.push(rcgen::DnType::CommonName, CERTIFICATE_NAME);
        let certificate = params.self_signed(&key)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified = certified_key(vec![certificate.der().clone()], private, provider());
        let certified = certified.map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(Self {
            fingerprint: Fingerprint::of_key(&key.subject_public_key_info()),
            certified: Arc::new(certified),
        })
    }

    /// The fingerprint of the key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// A certificate chain with its private key.
pub(crate) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(chain, provider.key_provider.load_private_key(private)?);
    certified.keys_match()?;
    Ok(certified)
}

/// Writes a new key, unless another process has written one.
fn create(folder: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let temporary = folder.join(format!("{FILE_NAME}.{}", random_hex::<8>()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
        file.write_all(key.serialize_pem().as_bytes())?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces the key of another process.
        match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    };
    let written = write();
    let _ = fs::remove_file(&temporary);
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tightwad");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn({
                    let folder = folder.clone();
                    move || Identity::in_folder(&folder).unwrap().fingerprint()
                })
            })
            .collect();
        let fingerprints: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]));
        let path = folder.join(FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, FILE_MODE);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "a temporary file is left");
        let certificate = Identity::in_folder(&folder).unwrap().certified.cert[0].clone();
        assert_eq!(Fingerprint::of_certificate(&certificate), Some(fingerprints[0]));
    }

    #[test]
    fn readable_and_damaged_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        Identity::in_folder(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::in_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        let error = Identity::in_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("delete the file"), "{error}");
    }

    #[test]
    fn debug_output_hides_the_key() {
        let identity = Identity::ephemeral().unwrap();
        assert!(!format!("{identity:?}").to_lowercase().contains("private"), "{identity:?}");
    }
}
