//! What a worker offers to hosts: llama.cpp's RPC behind a token, and what it lends.
//! `host/PROTOCOL.md` explains every field.

pub(crate) mod facts;
pub(crate) mod lender;
pub(crate) mod routes;
pub(crate) mod server;
pub(crate) mod state;
