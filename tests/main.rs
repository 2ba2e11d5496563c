//! End-to-end tests of the real binary: behaviour that crosses crates.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod book;
mod chat;
mod clients;
mod consensus;
mod encryption;
mod endpoint;
mod exact;
mod faults;
mod gate;
mod gate_policies;
mod nodes;
mod plugins;
mod policies;
mod pool;
mod robust;
mod scripts;
mod support;
mod swarm;
mod text_servers;
mod workers;
