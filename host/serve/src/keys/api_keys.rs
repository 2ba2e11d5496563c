//! The credentials that a server accepts.
//!
//! Invariant: each key is found by the hash of its secret only. The server never holds the secret of a key.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock};

use serde_json::Value;
use tightwad_core::{Credentials, KeyHash, KeySpec, sync};
use time::OffsetDateTime;

use crate::keys::client::Client;
use crate::keys::key::{Key, SharedUsage};
use crate::keys::new_key::hash;
use crate::keys::refusal::Refusal;
use crate::keys::usage::KeyUsage;
use crate::keys::usage_file::Usages;
use crate::keys::utc_clock::UtcClock;

/// The credentials that a server accepts, and the usage of its keys. New credentials can replace them at any time.
pub struct ApiKeys {
    clock: UtcClock,
    current: RwLock<Arc<Current>>,
    usage: Mutex<UsageTable>,
}

/// The current credentials.
struct Current {
    credentials: Credentials,
    keys: HashMap<KeyHash, Arc<Key>>,
}

/// The usage of all keys since the start of the server.
#[derive(Default)]
struct UsageTable {
    /// By id. A key that a reload removes keeps its usage, in case that a later reload adds it again.
    known: BTreeMap<String, SharedUsage>,
    /// From the file, for keys that no script had yet.
    saved: Usages,
}

impl UsageTable {
    fn of(&mut self, spec: &KeySpec, now: OffsetDateTime) -> SharedUsage {
        let id = id(spec);
        let saved = self.saved.remove(&id);
        let usage = || Arc::new(Mutex::new(saved.unwrap_or_else(|| KeyUsage::unused(now))));
        self.known.entry(id).or_insert_with(usage).clone()
    }
}

/// The id of a key's usage. A new secret begins without usage.
fn id(spec: &KeySpec) -> String {
    format!("{}:{}", spec.name, spec.hash.short())
}

impl ApiKeys {
    /// Accepts `credentials`.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self::with_clock(credentials, UtcClock::default())
    }

    pub(crate) fn with_clock(credentials: Credentials, clock: UtcClock) -> Self {
        let none = Current { credentials: Credentials::default(), keys: HashMap::new() };
        let keys = Self { clock, current: RwLock::new(Arc::new(none)), usage: Mutex::default() };
        keys.replace(credentials);
        keys
    }

    /// The current credentials.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.current().credentials.clone()
    }

    /// True if the server accepts every client: it has neither a token nor keys now.
    #[must_use]
    pub fn accepts_everyone(&self) -> bool {
        self.current().credentials.accepts_everyone()
    }

    /// Replaces the credentials from the next request on. Keys with the same name and hash keep their usage.
    pub fn replace(&self, credentials: Credentials) {
        let mut usage = sync::lock(&self.usage);
        let now = self.clock.now();
        let key = |spec: &KeySpec| {
            let key = Key::new(spec.clone(), usage.of(spec, now), self.clock.clone());
            (spec.hash, Arc::new(key))
        };
        let keys = credentials.keys.iter().map(key).collect();
        *sync::write(&self.current) = Arc::new(Current { credentials, keys });
    }

    /// Finds the client with `secret`. The lookup compares SHA-256 digests. Its time can depend on the digest. An attacker
    /// cannot choose the digest of a guess, so the time reveals nothing about the keys.
    ///
    /// # Errors
    ///
    /// The secret is missing or unknown.
    pub(crate) fn authenticate(&self, secret: Option<&[u8]>) -> Result<Client, Refusal> {
        let current = self.current();
        if current.credentials.accepts_everyone() {
            return Ok(Client::Unrestricted);
        }
        let secret = secret.ok_or(Refusal::MissingKey)?;
        if current.credentials.token.as_ref().is_some_and(|token| token.matches(secret)) {
            return Ok(Client::Unrestricted);
        }
        current.keys.get(&hash(secret)).cloned().map(Client::Key).ok_or(Refusal::InvalidKey)
    }

    /// The keys with their usage today, by name.
    pub(crate) fn status(&self) -> Vec<Value> {
        let current = self.current();
        let mut keys: Vec<&Arc<Key>> = current.keys.values().collect();
        keys.sort_by(|a, b| a.name().cmp(b.name()));
        keys.into_iter().map(|key| key.status()).collect()
    }

    /// Continues from the usage in a file.
    pub(crate) fn restore(&self, mut saved: Usages) {
        let mut usage = sync::lock(&self.usage);
        for (id, known) in &usage.known {
            if let Some(saved) = saved.remove(id) {
                *sync::lock(known) = saved;
            }
        }
        usage.saved = saved;
    }

    /// The usage of all keys since the start.
    pub(crate) fn usages(&self) -> Usages {
        let usage = sync::lock(&self.usage);
        usage.known.iter().map(|(id, usage)| (id.clone(), *sync::lock(usage))).collect()
    }

    /// The current time.
    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    fn current(&self) -> Arc<Current> {
        sync::read(&self.current).clone()
    }
}
