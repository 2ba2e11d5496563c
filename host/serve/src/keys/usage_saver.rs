//! Saves the usage of keys, so that limits continue after a restart.

use std::sync::Arc;
use std::time::Duration;

use tightwad_core::sync;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::keys::api_keys::ApiKeys;
use crate::keys::usage_file::{UsageFile, Usages};

/// The time between two saves. A host that is killed forgets the usage of this time at most.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// Saves the usage of keys while it lives.
pub struct UsageSaver(Option<Running>);

/// The task that saves. Dropping it stops the task.
struct Running {
    saves: Arc<Saves>,
    _task: JoinSet<()>,
}

impl UsageSaver {
    /// Restores the usage in `file`, and saves it after changes. Logs a file that cannot be used. Without a file, a
    /// restart forgets the usage. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(keys: Arc<ApiKeys>, file: Option<UsageFile>) -> Self {
        let Some(file) = file else { return Self(None) };
        match file.load() {
            Ok(usages) => keys.restore(usages),
            Err(error) => {
                let file = file.path().display();
                tracing::warn!("cannot use {file}: {error}. The limits of API keys begin anew.");
            }
        }
        let saved = keys.usages().into();
        let saves = Arc::new(Saves { keys, file, saved });
        let mut task = JoinSet::new();
        task.spawn(save_regularly(saves.clone()));
        Self(Some(Running { saves, _task: task }))
    }

    /// Saves the last changes.
    pub async fn finish(self) {
        if let Some(running) = self.0 {
            save(running.saves).await;
        }
    }
}

/// The keys, their file, and the usage in the file.
struct Saves {
    keys: Arc<ApiKeys>,
    file: UsageFile,
    saved: std::sync::Mutex<Usages>,
}

impl Saves {
    /// Saves the usage if it has changed.
    fn save(&self) {
        let mut saved = sync::lock(&self.saved);
        let usages = self.keys.usages();
        if usages == *saved {
            return;
        }
        match self.file.save(&usages, self.keys.now()) {
            Ok(()) => *saved = usages,
            Err(error) => {
                let file = self.file.path().display();
                tracing::warn!("cannot write {file}: {error}. A restart forgets the usage of API keys.");
            }
        }
    }
}

async fn save_regularly(saves: Arc<Saves>) {
    let mut ticks = interval(SAVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        save(saves.clone()).await;
    }
}

/// Saves on a blocking thread, because disks can be slow.
async fn save(saves: Arc<Saves>) {
    if let Err(error) = tokio::task::spawn_blocking(move || saves.save()).await {
        tracing::error!(%error, "saving the usage of API keys failed");
    }
}
