//! The sessions of a node.
//!
//! Invariant: a session is in the table until it is closed, expires, or makes room for another; then
//! nothing but a call that is still running holds it, and its sequence is freed with that call.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tightwad_core::{SharedBackend, sync};
use tokio::task::AbortHandle;

use crate::server::state::Session;

/// How many sessions there may be, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Sessions of one client, by its address.
    pub a_client: usize,
    /// Sessions in all.
    pub all: usize,
    /// How long a session may be idle.
    pub idle: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { a_client: 32, all: 256, idle: Duration::from_secs(120) }
    }
}

/// A session that has been idle for this long makes room for a request that waits.
const EVICTABLE: Duration = Duration::from_millis(500);
/// How often idle sessions are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// One session with what the table must know of it.
pub(crate) struct Entry {
    pub id: String,
    pub model: String,
    pub session: Arc<tokio::sync::Mutex<Session>>,
    used: Mutex<Instant>,
    /// The call that runs.
    running: Mutex<Option<AbortHandle>>,
    _place: Place,
}

impl Entry {
    pub(crate) fn new(id: String, model: String, session: Session, place: Place) -> Self {
        Self {
            id,
            model,
            session: Arc::new(tokio::sync::Mutex::new(session)),
            used: Mutex::new(Instant::now()),
            running: Mutex::default(),
            _place: place,
        }
    }

    /// Notes that the session is in use.
    pub(crate) fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    /// Notes the call that runs now, so that closing the session ends it.
    pub(crate) fn runs(&self, call: AbortHandle) {
        *lock(&self.running) = Some(call);
    }

    /// How long the session has been idle; zero while a call runs.
    fn idle(&self) -> Duration {
        if self.session.try_lock().is_err() { Duration::ZERO } else { lock(&self.used).elapsed() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    sync::lock(mutex)
}

type Places = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One of the sessions that a client may have; given back when dropped.
pub(crate) struct Place {
    client: IpAddr,
    places: Places,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        if let Some(taken) = places.get_mut(&self.client) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.client);
            }
        }
    }
}

/// A limit of sessions is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooManySessions {
    /// That of the node.
    #[error("{0} sessions are open, which is as many as this node allows")]
    Node(usize),
    /// That of one client.
    #[error("{client} has {open} sessions open, which is as many as this node allows a client")]
    Client { client: IpAddr, open: usize },
}

/// All sessions.
pub(crate) struct Registry {
    limits: SessionLimits,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
    places: Places,
    next: AtomicU64,
    /// Tells the sessions of this run of the node from those of an earlier one.
    run: u32,
}

impl Registry {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        let run = fastrand::u32(..);
        Self { limits, entries: Mutex::default(), places: Places::default(), next: AtomicU64::new(0), run }
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// A place for a session of `client`.
    pub(crate) fn place(&self, client: IpAddr) -> Result<Place, TooManySessions> {
        let mut places = lock(&self.places);
        let all: usize = places.values().sum();
        if all >= self.limits.all {
            return Err(TooManySessions::Node(all));
        }
        let taken = places.entry(client).or_default();
        if *taken >= self.limits.a_client {
            return Err(TooManySessions::Client { client, open: *taken });
        }
        *taken += 1;
        Ok(Place { client, places: self.places.clone() })
    }

    /// A name that no other session has.
    pub(crate) fn name(&self) -> String {
        format!("{:x}-{:x}", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn add(&self, entry: Entry) {
        lock(&self.entries).insert(entry.id.clone(), Arc::new(entry));
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Entry>> {
        lock(&self.entries).get(id).cloned()
    }

    /// Forgets a session and ends the call that runs on it.
    pub(crate) fn remove(&self, id: &str) {
        let removed = lock(&self.entries).remove(id);
        if let Some(call) = removed.and_then(|entry| lock(&entry.running).take()) {
            call.abort();
        }
    }

    /// Lets the session on `model` that has been idle longest make room.
    fn make_room(&self, model: &str) {
        let mut entries = lock(&self.entries);
        let own = entries.values().filter(|entry| entry.model == model);
        let idlest = own.map(|entry| (entry.idle(), entry.id.clone())).max();
        if let Some((idle, id)) = idlest.filter(|(idle, _)| *idle >= EVICTABLE) {
            tracing::info!(session = id, idle_ms = idle.as_millis(), "makes room for another request");
            entries.remove(&id);
        }
    }

    fn expire(&self) {
        let limit = self.limits.idle;
        lock(&self.entries).retain(|_, entry| entry.idle() < limit);
    }
}

/// Closes sessions that expired, and those that others wait for, for as long as the registry lives.
pub(crate) fn sweep(registry: &Arc<Registry>, models: &Arc<BTreeMap<String, SharedBackend>>) {
    let registry: Weak<Registry> = Arc::downgrade(registry);
    let models = models.clone();
    tokio::spawn(async move {
        while let Some(alive) = registry.upgrade() {
            alive.expire();
            let waiting = models.iter().filter(|(_, backend)| backend.load().waiting > 0);
            waiting.for_each(|(model, _)| alive.make_room(model));
            drop(alive);
            tokio::time::sleep(LOOK).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use tightwad_core::{DrafterSource, Request, TargetSource};

    use super::*;
    use crate::server::state::DrafterSession;
    use crate::testing::Model;

    #[test]
    fn places_are_limited_and_given_back() {
        let limits = SessionLimits { a_client: 2, all: 3, ..SessionLimits::default() };
        let registry = Registry::new(limits);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = registry.place(a).ok().unwrap();
        let second = registry.place(a);
        assert!(second.is_ok());
        assert!(registry.place(a).err().unwrap().to_string().contains("10.0.0.1 has 2 sessions"));
        let third = registry.place(b);
        assert!(third.is_ok());
        assert!(registry.place(b).err().unwrap().to_string().contains("3 sessions are open"));
        drop(first);
        assert!(registry.place(a).is_ok());
    }

    /// A registry of sessions that expire at once, with one session.
    async fn registry() -> (Registry, Arc<Entry>) {
        let limits = SessionLimits { idle: Duration::from_nanos(1), ..SessionLimits::default() };
        let registry = Registry::new(limits);
        let place = registry.place(IpAddr::from([10, 0, 0, 1])).ok().unwrap();
        let (model, request) = (Model::new(), Arc::new(Request::default()));
        let drafter = model.open_drafter(&model.read(&request).await.unwrap()).await.unwrap();
        let session = Session::Drafter(DrafterSession::new(drafter, &[], &[]));
        registry.add(Entry::new("s".to_owned(), "model".to_owned(), session, place));
        let entry = registry.get("s").unwrap();
        (registry, entry)
    }

    #[tokio::test]
    async fn an_idle_session_expires_and_a_busy_one_does_not() {
        let (registry, entry) = registry().await;
        let busy = entry.session.lock().await;
        registry.expire();
        assert_eq!(registry.len(), 1);
        drop(busy);
        registry.expire();
        assert_eq!(registry.len(), 0);
        assert_eq!(lock(&registry.places).len(), 1, "a call may still hold the session");
        drop(entry);
        assert!(lock(&registry.places).is_empty());
    }

    #[tokio::test]
    async fn removing_a_session_ends_its_call() {
        let (registry, entry) = registry().await;
        let call = tokio::spawn(std::future::pending::<()>());
        entry.runs(call.abort_handle());
        registry.remove("s");
        assert!(call.await.unwrap_err().is_cancelled());
        assert!(registry.get("s").is_none());
    }

    #[tokio::test]
    async fn only_a_session_of_the_same_model_that_rests_makes_room() {
        let (registry, entry) = registry().await;
        registry.make_room("model");
        assert_eq!(registry.len(), 1, "it was used a moment ago");
        *lock(&entry.used) -= 2 * EVICTABLE;
        registry.make_room("other");
        assert_eq!(registry.len(), 1);
        registry.make_room("model");
        assert_eq!(registry.len(), 0);
    }
}
