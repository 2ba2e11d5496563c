//! The state that all handlers of a seeder share.

use std::net::IpAddr;
use std::sync::Arc;

use tightwad_core::Token;
use tokio::sync::Semaphore;

use crate::net::limit::RateLimit;
use crate::net::seed::access::Access;
use crate::net::seed::refusal::Refusal;
use crate::net::seed::seeds::{Seed, Seeds};
use crate::net::seed::uploads::Uploads;

/// Uploads to one address at the same time, by default.
const UPLOADS: usize = 8;
/// Uploads that are asked for at the same time.
const ALL_UPLOADS: usize = 256;
/// Uploads that run at the same time, by default: the fewer share an uplink, the sooner one is a piece that can
/// be passed on.
const TURNS: usize = 4;
/// Questions that wait for news at the same time; those beyond are answered at once.
const WAITING: usize = 1024;

/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub struct SeedState {
    pub(crate) seeds: Arc<Seeds>,
    pub(crate) access: Arc<Access>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) waiting: Arc<Semaphore>,
    pub(crate) limit: Option<Arc<RateLimit>>,
}

impl SeedState {
    /// Serves `seeds` to everybody.
    #[must_use]
    pub fn new(seeds: Arc<Seeds>) -> Self {
        Self {
            seeds,
            access: Arc::default(),
            uploads: Arc::new(Uploads::new(UPLOADS, ALL_UPLOADS)),
            turns: Arc::new(Semaphore::new(TURNS)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            limit: None,
        }
    }

    /// Serves only those that `allows` says yes to, and that bring `token`, where there is one.
    #[must_use]
    pub fn guarded(
        mut self,
        token: Option<Token>,
        allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.access = Arc::new(Access::new(token, allows));
        self
    }

    /// At most `uploads` at the same time to one address.
    #[must_use]
    pub fn uploads(mut self, uploads: usize) -> Self {
        self.uploads = Arc::new(Uploads::new(uploads.max(1), ALL_UPLOADS));
        self
    }

    /// At most `turns` uploads run at the same time, to whomever; others wait a while for their turn.
    #[must_use]
    pub fn turns(mut self, turns: usize) -> Self {
        self.turns = Arc::new(Semaphore::new(turns.clamp(1, ALL_UPLOADS)));
        self
    }

    /// All uploads together take no more than `limit`.
    #[must_use]
    pub fn limited(mut self, limit: Option<Arc<RateLimit>>) -> Self {
        self.limit = limit;
        self
    }

    /// The seeded model of that root. Only what is seeded is found: a name is never made into a path.
    pub(crate) fn seed(&self, root: &str) -> Result<Arc<Seed>, Refusal> {
        let root = root.parse().map_err(|_| Refusal::Unknown)?;
        self.seeds.get(root).ok_or(Refusal::Unknown)
    }
}
