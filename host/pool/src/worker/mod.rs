//! A worker's HTTP server: the description of the worker, and tunnels to llama.cpp's RPC.
//! `host/book/src/protocols/worker.md` describes each field.

pub(crate) mod info;
pub(crate) mod routes;
pub(crate) mod rpc_server;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod state;
