//! Converts request bodies to requests for backends.

pub(crate) mod chat_options;
pub(crate) mod checked;
pub(crate) mod fields;
pub(crate) mod format;
pub(crate) mod messages;
pub(crate) mod numbers;
pub(crate) mod sampling;

#[cfg(test)]
mod tests;
