//! The state that all handlers of a seeder share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tightwad_core::Token;
use tokio::sync::Semaphore;

use crate::net::rate_limit::RateLimit;
use crate::net::seed::access::Access;
use crate::net::seed::refusal::Refusal;
use crate::net::seed::seeds::{Seed, Seeds};
use crate::net::seed::uploads::{UploadLimits, Uploads};

/// Default number of accepted uploads per address.
const DEFAULT_MAX_UPLOADS_PER_ADDRESS: usize = 8;
/// Largest number of accepted uploads.
const MAX_UPLOADS: usize = 256;
/// Default number of uploads that run at the same time. With few uploads per uplink, each piece completes
/// sooner, and its receiver can seed it sooner.
const DEFAULT_UPLOAD_SLOTS: usize = 4;
/// Default time after which an upload loses its turn when its reader takes nothing. A reader of 2 KiB per
/// second still keeps its turn.
const DEFAULT_UPLOAD_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest number of waiting long polls. The seeder answers further ones immediately.
const MAX_LONG_POLLS: usize = 1024;

/// The shared state. Clones share it.
#[derive(Clone)]
pub struct SeedState {
    pub(crate) seeds: Arc<Seeds>,
    pub(crate) access: Arc<Access>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) long_polls: Arc<Semaphore>,
    pub(crate) rate_limit: Option<Arc<RateLimit>>,
}

impl SeedState {
    /// Serves `seeds` to every machine.
    #[must_use]
    pub fn new(seeds: Arc<Seeds>) -> Self {
        Self {
            seeds,
            access: Arc::default(),
            uploads: Arc::new(Uploads::new(UploadLimits {
                max_per_address: DEFAULT_MAX_UPLOADS_PER_ADDRESS,
                max_total: MAX_UPLOADS,
                slots: DEFAULT_UPLOAD_SLOTS,
                stall_timeout: DEFAULT_UPLOAD_STALL_TIMEOUT,
            })),
            long_polls: Arc::new(Semaphore::new(MAX_LONG_POLLS)),
            rate_limit: None,
        }
    }

    /// Serves only addresses that `allows` accepts, and requires `token` if there is one.
    #[must_use]
    pub fn access(
        mut self,
        token: Option<Token>,
        allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.access = Arc::new(Access::new(token, allows));
        self
    }

    /// Accepts at most `max` uploads per address at the same time.
    #[must_use]
    pub fn max_uploads_per_address(self, max: usize) -> Self {
        let limits = UploadLimits { max_per_address: max.max(1), ..self.uploads.limits };
        self.with_upload_limits(limits)
    }

    /// Runs at most `slots` uploads at the same time, over all addresses. Further uploads wait for a slot.
    #[must_use]
    pub fn upload_slots(self, slots: usize) -> Self {
        let limits = UploadLimits { slots: slots.clamp(1, MAX_UPLOADS), ..self.uploads.limits };
        self.with_upload_limits(limits)
    }

    /// Takes the turn of an upload away when its reader takes nothing for `timeout` and another one waits.
    #[must_use]
    pub fn upload_stall_timeout(self, timeout: Duration) -> Self {
        let limits = UploadLimits { stall_timeout: timeout, ..self.uploads.limits };
        self.with_upload_limits(limits)
    }

    fn with_upload_limits(mut self, limits: UploadLimits) -> Self {
        self.uploads = Arc::new(Uploads::new(limits));
        self
    }

    /// Limits the rate of all uploads together.
    #[must_use]
    pub fn rate_limit(mut self, limit: Option<Arc<RateLimit>>) -> Self {
        self.rate_limit = limit;
        self
    }

    /// The seeded model with the root in `root`. Only registered models are found: the text never becomes a
    /// path.
    pub(crate) fn seed(&self, root: &str) -> Result<Arc<Seed>, Refusal> {
        let root = root.parse().map_err(|_| Refusal::UnknownModel)?;
        self.seeds.get(root).ok_or(Refusal::UnknownModel)
    }
}
