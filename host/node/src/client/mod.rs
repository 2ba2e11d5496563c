//! The client: a model on a node as a backend.

pub(crate) mod checks;
pub(crate) mod drafter;
pub(crate) mod error;
pub(crate) mod link;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod probe;
pub(crate) mod steps;
pub(crate) mod target;
pub(crate) mod timeouts;
pub(crate) mod vocabulary;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
