//! The sessions of a node.
//!
//! Invariant: a session stays in the table until it is closed, expires, or is evicted. Afterwards only a
//! running call holds the session, and its sequence is freed when the call ends.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tightwad_core::{SharedBackend, sync};
use tokio::task::AbortHandle;

use crate::server::state::Session;

/// Limits of sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// The maximum number of sessions of one client address.
    pub per_client: usize,
    /// The maximum number of sessions of all clients.
    pub total: usize,
    /// The time after which an idle session is closed.
    pub idle_timeout: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { per_client: 32, total: 256, idle_timeout: Duration::from_secs(120) }
    }
}

/// The minimum idle time of a session that a waiting request can evict.
const MIN_EVICTION_IDLE_TIME: Duration = Duration::from_millis(500);
/// The time between two searches for idle sessions.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// A session and its bookkeeping.
pub(crate) struct SessionEntry {
    pub id: String,
    pub model: String,
    pub session: Arc<tokio::sync::Mutex<Session>>,
    last_used: Mutex<Instant>,
    /// The running call.
    running_call: Mutex<Option<AbortHandle>>,
    _permit: SessionPermit,
}

impl SessionEntry {
    pub(crate) fn new(id: String, model: String, session: Session, permit: SessionPermit) -> Self {
        Self {
            id,
            model,
            session: Arc::new(tokio::sync::Mutex::new(session)),
            last_used: Mutex::new(Instant::now()),
            running_call: Mutex::default(),
            _permit: permit,
        }
    }

    /// Restarts the idle time.
    pub(crate) fn touch(&self) {
        *lock(&self.last_used) = Instant::now();
    }

    /// Stores the running call, so that closing the session aborts it.
    pub(crate) fn set_running_call(&self, call: AbortHandle) {
        *lock(&self.running_call) = Some(call);
    }

    /// The idle time; zero while a call runs.
    fn idle_time(&self) -> Duration {
        if self.session.try_lock().is_err() { Duration::ZERO } else { lock(&self.last_used).elapsed() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    sync::lock(mutex)
}

type SessionCounts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Permission for one session of a client. Dropping it releases the permission.
pub(crate) struct SessionPermit {
    client: IpAddr,
    counts: SessionCounts,
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(open) = counts.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// A session limit is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooManySessions {
    /// The limit of the node.
    #[error("{0} sessions are open, the maximum of this node")]
    Node(usize),
    /// The limit of one client.
    #[error("{client} has {open} sessions open, the maximum per client")]
    Client { client: IpAddr, open: usize },
}

/// All sessions of a node.
pub(crate) struct Registry {
    limits: SessionLimits,
    entries: Mutex<HashMap<String, Arc<SessionEntry>>>,
    counts: SessionCounts,
    next: AtomicU64,
    /// A random prefix of session ids, which separates this run of the node from earlier runs.
    run_id: u32,
}

impl Registry {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        let run_id = fastrand::u32(..);
        Self {
            limits,
            entries: Mutex::default(),
            counts: SessionCounts::default(),
            next: AtomicU64::new(0),
            run_id,
        }
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Reserves a session for `client`.
    pub(crate) fn reserve(&self, client: IpAddr) -> Result<SessionPermit, TooManySessions> {
        let mut counts = lock(&self.counts);
        let open_sessions: usize = counts.values().sum();
        if open_sessions >= self.limits.total {
            return Err(TooManySessions::Node(open_sessions));
        }
        let open = counts.entry(client).or_default();
        if *open >= self.limits.per_client {
            return Err(TooManySessions::Client { client, open: *open });
        }
        *open += 1;
        Ok(SessionPermit { client, counts: self.counts.clone() })
    }

    /// A new, unique session id.
    pub(crate) fn new_id(&self) -> String {
        format!("{:x}-{:x}", self.run_id, self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn add(&self, entry: SessionEntry) {
        lock(&self.entries).insert(entry.id.clone(), Arc::new(entry));
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<SessionEntry>> {
        lock(&self.entries).get(id).cloned()
    }

    /// Removes a session and aborts its running call.
    pub(crate) fn remove(&self, id: &str) {
        let removed = lock(&self.entries).remove(id);
        if let Some(call) = removed.and_then(|entry| lock(&entry.running_call).take()) {
            call.abort();
        }
    }

    /// Evicts the session on `model` with the longest idle time, if this time reaches
    /// [`MIN_EVICTION_IDLE_TIME`].
    fn evict_idle(&self, model: &str) {
        let mut entries = lock(&self.entries);
        let of_model = entries.values().filter(|entry| entry.model == model);
        let longest_idle = of_model.map(|entry| (entry.idle_time(), entry.id.clone())).max();
        if let Some((idle_time, id)) =
            longest_idle.filter(|(idle_time, _)| *idle_time >= MIN_EVICTION_IDLE_TIME)
        {
            tracing::info!(
                session = id,
                idle_ms = idle_time.as_millis(),
                "evicted an idle session for a waiting request"
            );
            entries.remove(&id);
        }
    }

    fn remove_expired(&self) {
        let limit = self.limits.idle_timeout;
        lock(&self.entries).retain(|_, entry| entry.idle_time() < limit);
    }
}

/// Starts a task that closes expired sessions, and evicts idle ones while requests wait. The task ends with
/// the registry.
pub(crate) fn spawn_sweeper(registry: &Arc<Registry>, models: &Arc<BTreeMap<String, SharedBackend>>) {
    let registry: Weak<Registry> = Arc::downgrade(registry);
    let models = models.clone();
    tokio::spawn(async move {
        while let Some(alive) = registry.upgrade() {
            alive.remove_expired();
            let waiting = models.iter().filter(|(_, backend)| backend.load().waiting > 0);
            waiting.for_each(|(model, _)| alive.evict_idle(model));
            drop(alive);
            tokio::time::sleep(SWEEP_INTERVAL).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use tightwad_core::{DrafterSource, Request, TargetSource};

    use super::*;
    use crate::server::state::DrafterSession;
    use crate::testing::FakeModel;

    #[test]
    fn permits_are_limited_and_released_on_drop() {
        let limits = SessionLimits { per_client: 2, total: 3, ..SessionLimits::default() };
        let registry = Registry::new(limits);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = registry.reserve(a).ok().unwrap();
        let second = registry.reserve(a);
        assert!(second.is_ok());
        assert!(registry.reserve(a).err().unwrap().to_string().contains("10.0.0.1 has 2 sessions"));
        let third = registry.reserve(b);
        assert!(third.is_ok());
        assert!(registry.reserve(b).err().unwrap().to_string().contains("3 sessions are open"));
        drop(first);
        assert!(registry.reserve(a).is_ok());
    }

    /// A registry with one session and a minimal idle timeout.
    async fn registry() -> (Registry, Arc<SessionEntry>) {
        let limits = SessionLimits { idle_timeout: Duration::from_nanos(1), ..SessionLimits::default() };
        let registry = Registry::new(limits);
        let permit = registry.reserve(IpAddr::from([10, 0, 0, 1])).ok().unwrap();
        let (model, request) = (FakeModel::new(), Arc::new(Request::default()));
        let drafter = model.open_drafter(&model.prepare(&request).await.unwrap()).await.unwrap();
        let session = Session::Drafter(DrafterSession::new(drafter, &[], &[]));
        registry.add(SessionEntry::new("s".to_owned(), "model".to_owned(), session, permit));
        let entry = registry.get("s").unwrap();
        (registry, entry)
    }

    #[tokio::test]
    async fn idle_session_expires_and_busy_session_stays() {
        let (registry, entry) = registry().await;
        let busy = entry.session.lock().await;
        registry.remove_expired();
        assert_eq!(registry.len(), 1);
        drop(busy);
        registry.remove_expired();
        assert_eq!(registry.len(), 0);
        assert_eq!(lock(&registry.counts).len(), 1, "a call still holds the session");
        drop(entry);
        assert!(lock(&registry.counts).is_empty());
    }

    #[tokio::test]
    async fn removed_session_aborts_its_call() {
        let (registry, entry) = registry().await;
        let call = tokio::spawn(std::future::pending::<()>());
        entry.set_running_call(call.abort_handle());
        registry.remove("s");
        assert!(call.await.unwrap_err().is_cancelled());
        assert!(registry.get("s").is_none());
    }

    #[tokio::test]
    async fn eviction_takes_only_idle_sessions_of_the_model() {
        let (registry, entry) = registry().await;
        registry.evict_idle("model");
        assert_eq!(registry.len(), 1, "the session was in use a moment ago");
        *lock(&entry.last_used) -= 2 * MIN_EVICTION_IDLE_TIME;
        registry.evict_idle("other");
        assert_eq!(registry.len(), 1);
        registry.evict_idle("model");
        assert_eq!(registry.len(), 0);
    }
}
