//! The endpoint: OpenAI's HTTP API over backends.

mod admin;
mod admission;
mod auth;
mod body;
mod choices;
mod control;
mod endpoint;
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
mod keys;
mod metrics;
mod model_table;
mod models;
mod reply;
mod routes;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod token_count;

pub use control::Control;
pub use keys::api_keys::ApiKeys;
pub use keys::new_key::NewKey;
pub use keys::usage_file::UsageFile;
pub use keys::usage_saver::UsageSaver;
pub use metrics::{Collector, ENDPOINT_METRICS, MetricDescription, Metrics};
pub use model_table::{ModelTable, ServedModels};
pub use server::serve;
pub use state::ServerState;
