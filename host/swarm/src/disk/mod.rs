//! Files on this machine: manifests, and stores that hold a file completely or in part.

pub(crate) mod block_map;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod digest;
pub(crate) mod error;
pub(crate) mod facts;
pub(crate) mod file_io;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod format;
pub(crate) mod gguf;
pub(crate) mod hash;
pub(crate) mod journal;
pub(crate) mod json;
pub(crate) mod layers;
pub(crate) mod layout;
pub(crate) mod manifest;
pub(crate) mod manifest_error;
pub(crate) mod merkle;
pub(crate) mod name;
pub(crate) mod open;
pub(crate) mod reuse;
pub(crate) mod sidecar;
pub(crate) mod stamp;
pub(crate) mod store;
pub(crate) mod verify;

pub use digest::{Digest, DigestError};
pub use error::StoreError;
pub use facts::Facts;
pub use format::{Block, DEFAULT_PIECE_SIZE, MAX_BLOCK_SIZE, Piece};
pub use layers::LayersError;
pub use manifest::Manifest;
pub use manifest_error::ManifestError;
pub use open::check_absent;
pub use stamp::FileStamp;
pub use store::Store;
pub use tightwad_gguf::GgufError;
