//! The manifest of a file.
//!
//! Invariant: a manifest is valid by construction. Its pieces cover the file without gaps, and its blocks
//! cover the pieces. All sizes keep their limits. The root covers everything except the name.

use std::ops::Range;
use std::path::Path;

use tightwad_core::user_cache_dir;

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;
use crate::disk::format::{Content, Piece};
use crate::disk::layers::{Layers, LayersError};
use crate::disk::manifest_error::ManifestError;
use crate::disk::stamp::FileStamp;
use crate::disk::{build, check, json, merkle, name, sidecar};

/// The pieces and blocks of a file, their digests, and a root digest over everything except the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    content: Content,
    root: Digest,
}

impl Manifest {
    /// Builds the manifest of a file. Reads and hashes the complete file, on all cores. Several threads call
    /// `progress` with the number of bytes that they have hashed since their last call. Without `name`, the
    /// name is the model's own or the file's.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, changes during the call, or is a broken GGUF.
    pub fn build(
        path: &Path,
        largest_piece: u64,
        name: Option<&str>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, ManifestError> {
        Self::from_content(build::content(path, largest_piece, name, progress)?)
    }

    /// Parses a manifest from an untrusted source.
    ///
    /// # Errors
    ///
    /// When `bytes` are not a manifest, are too many, have another format, or contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::from_content(json::read(bytes)?)
    }

    /// The manifest as JSON: the same bytes on every machine.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json::write(&self.content)
    }

    /// Reads the sidecar of the file at `path`. `None` when there is none, or when the file may have changed
    /// since it was hashed.
    #[must_use]
    pub fn read_sidecar(path: &Path) -> Option<Self> {
        let sidecar = sidecar::read(path, user_cache_dir().as_deref())?;
        if sidecar.is_current { Self::parse(&sidecar.json).ok() } else { None }
    }

    /// Reads the sidecar of the file at `path`, even when the file may have changed since it was hashed.
    #[must_use]
    pub fn read_outdated_sidecar(path: &Path) -> Option<Self> {
        Self::parse(&sidecar::read(path, user_cache_dir().as_deref())?.json).ok()
    }

    /// Writes the manifest as the sidecar of the file at `path`, or into the user's cache. `stamp` is the
    /// file's, taken before the bytes were hashed.
    ///
    /// # Errors
    ///
    /// When the disk reports an error.
    pub fn write_sidecar(&self, path: &Path, stamp: FileStamp) -> Result<(), ManifestError> {
        sidecar::write(path, &self.to_json(), stamp, user_cache_dir().as_deref())
    }

    /// The same manifest under the name that `safe_name` makes of `name`.
    #[must_use]
    pub fn with_name(mut self, name: &str) -> Self {
        self.content.name = name::safe_name(name);
        self
    }

    /// The model's name and quantization, as its header states them. The root covers both.
    #[must_use]
    pub fn model_name(&self) -> Option<String> {
        self.content.facts.model_name()
    }

    /// The pieces of `layers`, and the header's piece. `header` is piece 0. Tensors outside all layers (token
    /// embeddings, output, final norms) are not included: see [`Manifest::pieces_outside_layers`].
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF, or the model has fewer layers.
    pub fn pieces_of_layers(&self, header: &[u8], layers: Range<u32>) -> Result<Vec<u32>, LayersError> {
        Layers::read(&self.content, header)?.pieces_of(layers)
    }

    /// The pieces of the tensors outside all layers, and the header's piece. The machines that begin or end a
    /// forward pass need them.
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF.
    pub fn pieces_outside_layers(&self, header: &[u8]) -> Result<Vec<u32>, LayersError> {
        Ok(Layers::read(&self.content, header)?.pieces_outside_layers())
    }

    /// The number of the model's layers. `header` is piece 0.
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF.
    pub fn layer_count(&self, header: &[u8]) -> Result<u32, LayersError> {
        Ok(Layers::read(&self.content, header)?.count())
    }

    fn from_content(content: Content) -> Result<Self, ManifestError> {
        check::check(&content)?;
        let root = merkle::root(&content);
        Ok(Self { content, root })
    }

    /// The digest that identifies the manifest: two files of the same root are equal.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The model's name; safe as a file name. The root does not cover it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.content.name
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// Bytes of the largest piece. The header's piece may be larger.
    #[must_use]
    pub fn largest_piece(&self) -> u64 {
        self.content.largest_piece
    }

    /// Facts from the file's header.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.content.facts
    }

    /// The pieces, in the file's order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.content.pieces
    }
}
