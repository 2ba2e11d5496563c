//! The endpoint: OpenAI's HTTP interface over backends.

mod admin;
mod auth;
mod body;
mod choices;
mod control;
mod handlers;
mod metrics;
mod models;
mod reply;
mod routes;
mod server;
mod state;
mod table;
#[cfg(test)]
mod tests;

pub use control::Control;
pub use metrics::{Collector, Metrics};
pub use server::serve;
pub use state::{CurrentToken, ServerState};
pub use table::{RouteTable, Routes};
