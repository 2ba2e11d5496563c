//! Files: what a manifest says of one, and what of it is on this machine.

mod at;
mod beside;
mod cut;
mod digest;
mod error;
mod facts;
mod finish;
#[cfg(test)]
mod fixture;
mod gguf;
mod hash;
mod have;
mod input;
mod journal;
mod layers;
mod manifest;
mod merkle;
mod name;
mod open;
mod reuse;
mod store;
mod value;
mod wire;

pub use digest::{Digest, DigestError};
pub use error::StoreError;
pub use facts::Facts;
pub use gguf::GgufError;
pub use layers::LayersError;
pub use manifest::{BLOCK, Block, Manifest, ManifestError, PIECE, Piece};
pub use store::Store;
