//! Tests of the HTTP API over real connections.

mod admin;
mod admission;
mod door;
mod fake;
mod keys;
mod limits;
mod non_streaming;
mod refusals;
mod secrets;
mod slow_clients;
mod stream;
