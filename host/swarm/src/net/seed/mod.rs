//! The seeder: serves this machine's models to peers.

pub(crate) mod access;
pub(crate) mod data;
pub(crate) mod guard;
pub(crate) mod refusal;
pub(crate) mod routes;
pub(crate) mod seeds;
pub(crate) mod server;
pub(crate) mod state;
pub(crate) mod uploads;
