//! Tests of the HTTP API over real connections.

mod admin;
mod fake;
mod non_streaming;
mod refusals;
mod stream;
