//! From a request's body to what backends understand.

pub(crate) mod fields;
pub(crate) mod format;
pub(crate) mod messages;
pub(crate) mod parsed;
pub(crate) mod sampling;
pub(crate) mod shape;

#[cfg(test)]
mod tests;
