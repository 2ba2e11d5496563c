//! The pools of this process, for the server.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::backend::BackendError;
use crate::mode::{Pooling, Pools};
use crate::server::Control;

/// Pools by name.
pub(super) struct PoolControl(pub Arc<Pools>);

impl PoolControl {
    fn find(&self, model: &str) -> Option<Arc<Pooling>> {
        // Of two with the same name, the one that was made last is what the script serves now.
        self.0.all().into_iter().rev().find(|pool| pool.spec().name == model)
    }
}

#[async_trait]
impl Control for PoolControl {
    fn status(&self) -> Vec<Value> {
        self.0.all().iter().filter_map(|pool| serde_json::to_value(pool.status()).ok()).collect()
    }

    async fn load(&self, model: &str) -> Option<Result<(), BackendError>> {
        Some(self.find(model)?.load().await.map(drop))
    }

    async fn unload(&self, model: &str) -> Option<()> {
        self.find(model)?.unload().await;
        Some(())
    }
}
