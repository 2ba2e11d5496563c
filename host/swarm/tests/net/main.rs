//! Pulls between seeders: real files, real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod encrypted;
mod hostile;
mod pickers;
mod pulling;
mod seeding;
mod support;
mod trouble;
