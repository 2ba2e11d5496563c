//! The file that keeps the usage of keys.
//!
//! Invariant: the file is complete at all times, because it is replaced as a whole. Hosts of one user share it: each host
//! changes only its own keys, under a lock.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tightwad_core::{parse_date, user_state_dir};
use time::{Duration, OffsetDateTime};

use crate::keys::usage::KeyUsage;

/// The version of the format.
const VERSION: u32 = 1;
/// Only the user may read how much each key is used.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// The usage of keys by their ids.
pub(crate) type Usages = BTreeMap<String, KeyUsage>;

/// The file that keeps the usage of keys.
#[derive(Debug, Clone)]
pub struct UsageFile {
    path: PathBuf,
}

/// The contents of the file.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    keys: BTreeMap<String, Record>,
}

/// The usage of one key.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Day of the tokens, UTC, as in 2027-01-31.
    day: String,
    tokens: u64,
    /// Milliseconds since 1970 at which the bucket of requests is full.
    requests_full_at_ms: i64,
}

impl UsageFile {
    /// The file `key-usage.json` in the user's state directory; `None` for users without a home directory.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        user_state_dir().map(|folder| Self::at(folder.join("key-usage.json")))
    }

    /// The file at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the usage of all keys. A missing file has none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or it has another format.
    pub(crate) fn load(&self) -> std::io::Result<Usages> {
        let text = match std::fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Usages::new()),
            text => text?,
        };
        let document: Document = serde_json::from_slice(&text)?;
        if document.version != VERSION {
            let message = format!("its version is {}, not {VERSION}", document.version);
            return Err(std::io::Error::new(ErrorKind::InvalidData, message));
        }
        let usage = |record: Record| {
            let day = parse_date(&record.day)?;
            let full_at =
                OffsetDateTime::UNIX_EPOCH.checked_add(Duration::milliseconds(record.requests_full_at_ms))?;
            Some(KeyUsage::new(day, record.tokens, full_at))
        };
        let usages = document.keys.into_iter().map(|(id, record)| Some((id, usage(record)?)));
        let usages: Option<Usages> = usages.collect();
        usages.ok_or_else(|| std::io::Error::new(ErrorKind::InvalidData, "it has an invalid date"))
    }

    /// Replaces the usage of the keys in `own`. Keeps other keys whose usage still matters at `now`.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn save(&self, own: &Usages, now: OffsetDateTime) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        }
        let lock = writable(&self.path.with_extension("lock"))?;
        lock.lock()?;
        // A file with another content is replaced.
        let mut usages = self.load().unwrap_or_default();
        usages.extend(own.iter().map(|(id, usage)| (id.clone(), *usage)));
        usages.retain(|_, usage| !usage.is_over(now));
        let keys = usages.into_iter().map(|(id, usage)| (id, Record::from(&usage))).collect();
        let part_path = self.path.with_extension("part");
        let mut part = writable(&part_path)?;
        part.set_len(0)?;
        part.write_all(&serde_json::to_vec(&Document { version: VERSION, keys })?)?;
        part.sync_data()?;
        std::fs::rename(&part_path, &self.path)
    }
}

impl From<&KeyUsage> for Record {
    fn from(usage: &KeyUsage) -> Self {
        let milliseconds = usage.requests_full_at.unix_timestamp_nanos() / 1_000_000;
        Self {
            day: usage.day().to_string(),
            tokens: usage.tokens_on(usage.day()),
            requests_full_at_ms: i64::try_from(milliseconds).unwrap_or(i64::MAX),
        }
    }
}

fn writable(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DAY: Duration = Duration::days(1);

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn file() -> (tempfile::TempDir, UsageFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = UsageFile::at(folder.path().join("new/key-usage.json"));
        (folder, file)
    }

    fn usages<const N: usize>(usages: [(&str, KeyUsage); N]) -> Usages {
        usages.map(|(id, usage)| (id.to_owned(), usage)).into()
    }

    #[test]
    fn usage_round_trips_through_file() {
        let (_folder, file) = file();
        assert_eq!(file.load().unwrap(), Usages::new());
        let usage = KeyUsage::new(now().date(), 42, now() + Duration::milliseconds(1234));
        file.save(&usages([("alice:0f", usage)]), now()).unwrap();
        assert_eq!(file.load().unwrap(), usages([("alice:0f", usage)]));
        let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
    }

    #[test]
    fn save_keeps_keys_of_other_hosts() {
        let (_folder, file) = file();
        let usage = |tokens| KeyUsage::new(now().date(), tokens, now());
        file.save(&usages([("other:1", usage(1)), ("own:2", usage(2))]), now()).unwrap();
        file.save(&usages([("own:2", usage(3))]), now()).unwrap();
        assert_eq!(file.load().unwrap(), usages([("other:1", usage(1)), ("own:2", usage(3))]));
    }

    #[test]
    fn save_drops_usage_of_yesterday() {
        let (_folder, file) = file();
        let usage = KeyUsage::new(now().date(), 5, now());
        file.save(&usages([("old:1", usage)]), now()).unwrap();
        file.save(&Usages::new(), now() + DAY).unwrap();
        assert_eq!(file.load().unwrap(), Usages::new());
    }

    #[test]
    fn corrupt_file_is_an_error_and_is_replaced() {
        let (_folder, file) = file();
        std::fs::create_dir(file.path().parent().unwrap()).unwrap();
        for corrupt in [
            "",
            "{",
            r#"{"version":2,"keys":{}}"#,
            r#"{"version":1,"keys":{"a":{"day":"x","tokens":1,"requests_full_at_ms":0}}}"#,
            r#"{"version":1,"keys":{"a":{"day":"2027-01-01","tokens":1,"requests_full_at_ms":9223372036854775807}}}"#,
        ] {
            std::fs::write(file.path(), corrupt).unwrap();
            assert!(file.load().is_err(), "{corrupt}");
            file.save(&Usages::new(), now()).unwrap();
            assert_eq!(file.load().unwrap(), Usages::new());
        }
    }
}
