//! What a node offers to hosts: sessions that verify, decode and propose; scores; tokens.
//! `host/PROTOCOL.md` explains every field.

pub(crate) mod body;
#[cfg(test)]
mod costs;
pub(crate) mod facts;
pub(crate) mod lent;
pub(crate) mod open;
pub(crate) mod registry;
pub(crate) mod routes;
pub(crate) mod sessions;
pub(crate) mod state;
pub(crate) mod tokens;
