//! The door with real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod bodies;
mod connections;
mod pairing;
mod shutdown;
mod support;
mod tls;
mod web;
