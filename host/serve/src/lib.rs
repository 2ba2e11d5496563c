//! The endpoint: OpenAI's HTTP API over backends.

mod admin;
mod auth;
mod body;
mod choices;
mod control;
mod endpoint;
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
mod metrics;
mod model_table;
mod models;
mod reply;
mod routes;
mod server;
mod state;
#[cfg(test)]
mod tests;

pub use control::Control;
pub use metrics::{Collector, ENDPOINT_METRICS, MetricDescription, Metrics};
pub use model_table::{ModelTable, ServedModels};
pub use server::serve;
pub use state::{CurrentToken, ServerState};
