//! The HTTP interface, asked over a real connection.

mod admin;
mod fake;
mod refusals;
mod stream;
mod whole;
