//! The messages between a host and a node: `host/PROTOCOL.md` explains every field.

pub(crate) mod calls;
pub(crate) mod facts;
pub(crate) mod hash;
pub(crate) mod seal;
