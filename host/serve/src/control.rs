//! The host behind the administration paths.

use async_trait::async_trait;
use serde_json::Value;
use tightwad_core::BackendError;

/// The host's part of `/v1/tightwad`: its status, and models that are loaded and unloaded at runtime.
#[async_trait]
pub trait Control: Send + Sync {
    /// The state of each model, as JSON objects with a `model` and a `state`.
    fn status(&self) -> Vec<Value>;

    /// The state of each mode, as JSON objects with a `mode` and a `name`.
    fn modes(&self) -> Vec<Value>;

    /// The plugins that scripts can use, as JSON objects with a `name` or an `error`.
    fn plugins(&self) -> Vec<Value>;

    /// Loads `model` and waits until it is ready; `None` if there is no such model.
    async fn load(&self, model: &str) -> Option<Result<(), BackendError>>;

    /// Waits for the running requests of `model` and unloads it; `None` if there is no such model.
    async fn unload(&self, model: &str) -> Option<()>;
}
