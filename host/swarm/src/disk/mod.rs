//! Files: what a manifest says of one, and what of it is on this machine.

pub(crate) mod at;
pub(crate) mod beside;
pub(crate) mod cut;
pub(crate) mod digest;
pub(crate) mod error;
pub(crate) mod facts;
pub(crate) mod finish;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod gguf;
pub(crate) mod hash;
pub(crate) mod have;
pub(crate) mod input;
pub(crate) mod journal;
pub(crate) mod layers;
pub(crate) mod manifest;
pub(crate) mod merkle;
pub(crate) mod name;
pub(crate) mod open;
pub(crate) mod reuse;
pub(crate) mod store;
pub(crate) mod value;
pub(crate) mod wire;

pub use digest::{Digest, DigestError};
pub use error::StoreError;
pub use facts::Facts;
pub use gguf::GgufError;
pub use layers::LayersError;
pub use manifest::{BLOCK, Block, Manifest, ManifestError, PIECE, Piece};
pub use store::Store;
