//! The door of every server: endpoint, node, worker and seeder.
//!
//! The accept loop limits connections and their time; the layers limit requests. See [`ConnectionLimits`] for the
//! numbers, and `host/book/src/guide/operations.md` for their effects.

pub(crate) mod activity;
pub(crate) mod body;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod encryption;
pub(crate) mod io;
pub(crate) mod layers;
pub(crate) mod server;
pub(crate) mod shutdown;
pub(crate) mod socket;
pub(crate) mod table;
pub(crate) mod web;

pub use config::{ConnectionLimits, DoorConfig, Encryption, PlainAccess};
pub use server::{Ended, serve};
pub use shutdown::Shutdown;
pub use socket::{descriptor_limit, raise_descriptor_limit};
pub use web::{InvalidWebName, WebNames};
