//! The messages between a host and a node. `host/book/src/protocols/node.md` documents every field.

pub(crate) mod calls;
pub(crate) mod checksum;
pub(crate) mod facts;
pub(crate) mod finite;
pub(crate) mod hash;
pub(crate) mod tree;
