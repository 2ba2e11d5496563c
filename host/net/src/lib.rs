//! How machines talk to each other: the bearer [`Token`] and the HTTP clients.
//!
//! Every server (endpoint, node, worker, seeder) checks tokens with [`Token::admits`], and every HTTP
//! client of the project is built here. Both rules have one place, so that no server can be left open and no
//! client can leak a token to a proxy.

mod client;
mod roots;
mod token;

pub use client::{authorized, is_local, machine_client, server_client};
pub use token::{InvalidToken, Token};
