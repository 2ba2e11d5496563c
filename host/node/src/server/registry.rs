//! The sessions of a node.
//!
//! Invariant: a session stays in the table until it is closed, expires, or is evicted. Afterwards only a
//! running call holds the session, and its sequence is freed when the call ends.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tightwad_core::{SharedBackend, random_hex, sync};
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::task::AbortHandle;

use crate::server::clients::{ClientCounts, ClientPermit, LimitReached};
use crate::server::state::{Session, StaleSession};

/// Limits of sessions and calls.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// The maximum number of sessions of one client address.
    pub per_client: usize,
    /// The maximum number of sessions of all clients.
    pub total: usize,
    /// The time after which an idle session is closed.
    pub idle_timeout: Duration,
    /// The time after which a decode ends whose reader accepts nothing.
    pub stall_timeout: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            per_client: 32,
            total: 256,
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// The minimum idle time of a session that a waiting request can evict.
const MIN_EVICTION_IDLE_TIME: Duration = Duration::from_millis(500);
/// The time between two searches for idle sessions.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// The number of calls that wait for a session. A caller that lost its connection repeats its call while the
/// first one still runs.
const MAX_WAITING_CALLS: usize = 1;

/// The random bytes of a session id.
const SESSION_ID_BYTES: usize = 16;

/// A session and its bookkeeping.
pub(crate) struct SessionEntry {
    pub id: String,
    pub model: String,
    /// The maximum number of tokens of the session.
    pub context: usize,
    session: Arc<tokio::sync::Mutex<Session>>,
    waiting: Semaphore,
    last_used: Mutex<Instant>,
    running_call: Mutex<RunningCall>,
    _permit: ClientPermit,
}

/// The state of a session's calls.
enum RunningCall {
    /// No call has run.
    None,
    /// The last call, which may have ended.
    Started(AbortHandle),
    /// The session is closed, so that no call may start.
    Closed,
}

impl SessionEntry {
    pub(crate) fn new(
        id: String,
        model: String,
        context: usize,
        session: Session,
        permit: ClientPermit,
    ) -> Self {
        Self {
            id,
            model,
            context,
            session: Arc::new(tokio::sync::Mutex::new(session)),
            waiting: Semaphore::new(MAX_WAITING_CALLS),
            last_used: Mutex::new(Instant::now()),
            running_call: Mutex::new(RunningCall::None),
            _permit: permit,
        }
    }

    /// Restarts the idle time.
    pub(crate) fn touch(&self) {
        *lock(&self.last_used) = Instant::now();
    }

    /// Waits until no other call runs on the session. Fails if another call already waits, or the session is
    /// closed meanwhile.
    pub(crate) async fn acquire(&self) -> Result<OwnedMutexGuard<Session>, StaleSession> {
        let session = self.session.clone();
        let guard = match session.clone().try_lock_owned() {
            Ok(guard) => guard,
            Err(_) => {
                let busy = || StaleSession("a call runs on this session, and another one waits".to_owned());
                let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
                session.lock_owned().await
            }
        };
        if matches!(*lock(&self.running_call), RunningCall::Closed) { Err(closed()) } else { Ok(guard) }
    }

    /// Stores the running call, so that closing the session aborts it. Aborts the call if the session is closed
    /// already.
    pub(crate) fn set_running_call(&self, call: AbortHandle) {
        let mut running = lock(&self.running_call);
        match *running {
            RunningCall::Closed => call.abort(),
            _ => *running = RunningCall::Started(call),
        }
    }

    /// Aborts the running call, and refuses further calls.
    fn close(&self) {
        if let RunningCall::Started(call) =
            std::mem::replace(&mut *lock(&self.running_call), RunningCall::Closed)
        {
            call.abort();
        }
    }

    /// The idle time; zero while a call runs.
    fn idle_time(&self) -> Duration {
        if self.session.try_lock().is_err() { Duration::ZERO } else { lock(&self.last_used).elapsed() }
    }
}

/// The session was closed while a call waited or ran.
pub(crate) fn closed() -> StaleSession {
    StaleSession("the session was closed".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    sync::lock(mutex)
}

/// All sessions of a node.
pub(crate) struct Registry {
    limits: SessionLimits,
    entries: Mutex<HashMap<String, Arc<SessionEntry>>>,
    clients: ClientCounts,
}

impl Registry {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        let clients = ClientCounts::new("sessions", limits.per_client, limits.total);
        Self { limits, entries: Mutex::default(), clients }
    }

    pub(crate) fn limits(&self) -> SessionLimits {
        self.limits
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Reserves a session for `client`.
    pub(crate) fn reserve(&self, client: IpAddr) -> Result<ClientPermit, LimitReached> {
        self.clients.reserve(client)
    }

    /// A new session id. No other client can guess the id, and no earlier run of the node used it.
    pub(crate) fn new_id() -> String {
        random_hex::<SESSION_ID_BYTES>()
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
        if let Some(entry) = removed {
            entry.close();
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

    /// A registry with one session and a minimal idle timeout.
    async fn registry() -> (Registry, Arc<SessionEntry>) {
        let limits = SessionLimits { idle_timeout: Duration::from_nanos(1), ..SessionLimits::default() };
        let registry = Registry::new(limits);
        let permit = registry.reserve(IpAddr::from([10, 0, 0, 1])).ok().unwrap();
        let (model, request) = (FakeModel::new(), Arc::new(Request::default()));
        let drafter = model.open_drafter(&model.prepare(&request).await.unwrap()).await.unwrap();
        let session = Session::Drafter(DrafterSession::new(drafter, &[], &[]));
        registry.add(SessionEntry::new("s".to_owned(), "model".to_owned(), 100, session, permit));
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
        assert_eq!(registry.clients.total(), 1, "a call still holds the session");
        drop(entry);
        assert_eq!(registry.clients.total(), 0);
    }

    #[tokio::test]
    async fn removed_session_aborts_its_call() {
        let (registry, entry) = registry().await;
        let call = tokio::spawn(std::future::pending::<()>());
        entry.set_running_call(call.abort_handle());
        registry.remove("s");
        assert!(call.await.unwrap_err().is_cancelled());
        assert!(registry.get("s").is_none());
        let late = tokio::spawn(std::future::pending::<()>());
        entry.set_running_call(late.abort_handle());
        assert!(late.await.unwrap_err().is_cancelled(), "a call started after the session was closed");
        assert!(entry.acquire().await.is_err());
    }

    #[tokio::test]
    async fn one_call_waits_for_a_session() {
        let (registry, entry) = registry().await;
        let running = entry.acquire().await.ok().unwrap();
        let (first, second) = (entry.clone(), entry.clone());
        let first = tokio::spawn(async move { first.acquire().await.is_ok() });
        while entry.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let error = second.acquire().await.err().unwrap();
        assert!(error.0.contains("another one waits"), "{}", error.0);
        drop(running);
        assert!(first.await.unwrap());
        registry.remove("s");
    }

    #[test]
    fn session_ids_are_random() {
        let (first, second) = (Registry::new_id(), Registry::new_id());
        assert_eq!((first.len(), second.len()), (32, 32));
        assert_ne!(first[..16], second[..16]);
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
