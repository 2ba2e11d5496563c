//! Models that people may load and unload.

use async_trait::async_trait;
use serde_json::Value;
use tightwad_core::BackendError;

/// Models that can be loaded and unloaded while the server runs.
#[async_trait]
pub trait Control: Send + Sync {
    /// What each of them is doing, as JSON objects with a `model` and a `state`.
    fn status(&self) -> Vec<Value>;

    /// What the modes are doing, as JSON objects with a `mode` and a `name`.
    fn modes(&self) -> Vec<Value>;

    /// The plugins that scripts can name, as JSON objects with a `name`, or an `error`.
    fn plugins(&self) -> Vec<Value>;

    /// Loads one, and waits until it answers; `None`: there is none of this name.
    async fn load(&self, model: &str) -> Option<Result<(), BackendError>>;

    /// Finishes what runs on one, and unloads it; `None`: there is none of this name.
    async fn unload(&self, model: &str) -> Option<()>;
}
