//! The machines that are paired with this one.
//!
//! Invariant: the file is complete at all times, because it is replaced as a whole. Commands of one user change it under a
//! lock; running servers read it again when it has changed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tightwad_core::{sync, user_data_dir};

use crate::tls::fingerprint::Fingerprint;

/// The version of the format.
const VERSION: u32 = 1;
const FILE_NAME: &str = "paired-machines.json";
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// The largest number of paired machines.
const MAX_MACHINES: usize = 1024;

/// A machine that is paired with this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedMachine {
    /// The name that the machine gave itself.
    pub name: String,
    /// The fingerprint of its key.
    #[serde(with = "text")]
    pub fingerprint: Fingerprint,
}

/// The list of paired machines of a user. Clones share what they have read.
#[derive(Debug, Clone)]
pub struct PairedMachines {
    /// `None`: a user without a home directory, who has no paired machines.
    folder: Option<PathBuf>,
    read: Arc<Mutex<Read>>,
}

/// What was read, and the state of the file at that time.
#[derive(Debug, Default)]
struct Read {
    stamp: Option<(SystemTime, u64)>,
    machines: Vec<PairedMachine>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    machines: Vec<PairedMachine>,
}

impl PairedMachines {
    /// The list of this user.
    #[must_use]
    pub fn of_user() -> Self {
        Self { folder: user_data_dir(), read: Arc::default() }
    }

    /// The list in `folder`.
    #[must_use]
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder: Some(folder), read: Arc::default() }
    }

    /// The paired machines. A file that cannot be read counts as empty, with a warning: no machine is trusted by mistake.
    #[must_use]
    pub fn list(&self) -> Vec<PairedMachine> {
        let Some(path) = self.path() else { return Vec::new() };
        let metadata = fs::metadata(&path).and_then(|metadata| Ok((metadata.modified()?, metadata.len())));
        let mut read = sync::lock(&self.read);
        let Ok(stamp) = metadata else {
            *read = Read::default();
            return Vec::new();
        };
        if read.stamp != Some(stamp) {
            let machines = load(&path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot read the list of paired machines");
                Vec::new()
            });
            *read = Read { stamp: Some(stamp), machines };
        }
        read.machines.clone()
    }

    /// The fingerprints of the paired machines.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.list().into_iter().map(|machine| machine.fingerprint).collect()
    }

    /// True if the machine with this fingerprint is paired.
    #[must_use]
    pub fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.list().iter().any(|machine| machine.fingerprint == fingerprint)
    }

    /// Adds a machine. A machine with the same fingerprint gets the new name.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written, or the list is full.
    pub fn add(&self, machine: PairedMachine) -> io::Result<()> {
        self.change(|machines| {
            machines.retain(|known| known.fingerprint != machine.fingerprint);
            if machines.len() >= MAX_MACHINES {
                return Err(io::Error::other(format!("{MAX_MACHINES} machines are paired already")));
            }
            machines.push(machine);
            Ok(())
        })
    }

    /// Removes the machines with this name or fingerprint, and returns their number.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written.
    pub fn remove(&self, name_or_fingerprint: &str) -> io::Result<usize> {
        let mut removed = 0;
        self.change(|machines| {
            let before = machines.len();
            machines.retain(|machine| {
                machine.name != name_or_fingerprint && machine.fingerprint.to_string() != name_or_fingerprint
            });
            removed = before - machines.len();
            Ok(())
        })?;
        Ok(removed)
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(FILE_NAME))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<PairedMachine>) -> io::Result<()>) -> io::Result<()> {
        let folder = self.folder.as_ref().ok_or_else(|| io::Error::other("set XDG_DATA_HOME or HOME"))?;
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        let path = folder.join(FILE_NAME);
        let lock = folder.join(format!("{FILE_NAME}.lock"));
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(lock)?;
        lock.lock()?;
        let mut machines = match load(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            loaded => loaded?,
        };
        change(&mut machines)?;
        let text = serde_json::to_vec_pretty(&Document { version: VERSION, machines })?;
        let temporary = folder.join(format!("{FILE_NAME}.new"));
        let mut file: File =
            OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        *sync::lock(&self.read) = Read::default();
        Ok(())
    }
}

fn load(path: &std::path::Path) -> io::Result<Vec<PairedMachine>> {
    let document: Document = serde_json::from_slice(&fs::read(path)?)?;
    if document.version != VERSION {
        let message = format!("its version is {}, not {VERSION}", document.version);
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    Ok(document.machines)
}

/// Fingerprints as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::tls::fingerprint::Fingerprint;

    pub(super) fn serialize<S: Serializer>(value: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, key: &[u8]) -> PairedMachine {
        PairedMachine { name: name.to_owned(), fingerprint: Fingerprint::of_key(key) }
    }

    #[test]
    fn paired_machines_are_kept_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (list, other) = (
            PairedMachines::in_folder(folder.path().into()),
            PairedMachines::in_folder(folder.path().into()),
        );
        assert!(list.list().is_empty());
        list.add(machine("attic", b"1")).unwrap();
        list.add(machine("cellar", b"2")).unwrap();
        list.add(machine("roof", b"1")).unwrap();
        assert_eq!(other.list(), [machine("cellar", b"2"), machine("roof", b"1")]);
        assert!(other.contains(Fingerprint::of_key(b"1")) && !other.contains(Fingerprint::of_key(b"3")));
        assert_eq!(list.remove("roof").unwrap(), 1);
        assert_eq!(other.remove(&Fingerprint::of_key(b"2").to_string()).unwrap(), 1);
        assert_eq!(list.remove("roof").unwrap(), 0);
        assert!(list.list().is_empty());
    }

    #[test]
    fn damaged_list_trusts_no_machine_and_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let list = PairedMachines::in_folder(folder.path().into());
        list.add(machine("attic", b"1")).unwrap();
        fs::write(folder.path().join(FILE_NAME), r#"{"version": 9, "machines": []}"#).unwrap();
        assert!(list.list().is_empty());
        let error = list.add(machine("cellar", b"2")).unwrap_err();
        assert!(error.to_string().contains("version is 9"), "{error}");
    }
}
