//! The server of a node: sessions that verify, decode and propose, scores, and tokenization.
//! `host/book/src/protocols/node.md` documents every field.

pub(crate) mod body;
pub(crate) mod clients;
#[cfg(test)]
mod costs;
pub(crate) mod decode;
pub(crate) mod facts;
#[cfg(test)]
mod hostile_tests;
pub(crate) mod open;
pub(crate) mod registry;
pub(crate) mod routes;
pub(crate) mod service;
pub(crate) mod sessions;
pub(crate) mod state;
pub(crate) mod tokens;
