//! Files: what a manifest says of one, and what of it is on this machine.

pub(crate) mod at;
pub(crate) mod beside;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod cut;
pub(crate) mod digest;
pub(crate) mod error;
pub(crate) mod facts;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod format;
pub(crate) mod gguf;
pub(crate) mod gguf_error;
pub(crate) mod hash;
pub(crate) mod have;
pub(crate) mod input;
pub(crate) mod journal;
pub(crate) mod json;
pub(crate) mod layers;
pub(crate) mod manifest;
pub(crate) mod manifest_error;
pub(crate) mod merkle;
pub(crate) mod name;
pub(crate) mod open;
pub(crate) mod reuse;
pub(crate) mod store;
pub(crate) mod value;

pub use digest::{Digest, DigestError};
pub use error::StoreError;
pub use facts::Facts;
pub use format::{BLOCK, Block, PIECE, Piece};
pub use gguf_error::GgufError;
pub use layers::LayersError;
pub use manifest::Manifest;
pub use manifest_error::ManifestError;
pub use store::Store;
