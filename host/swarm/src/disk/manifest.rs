//! What a file is made of.
//!
//! A manifest is valid by construction: its pieces cover the file without gaps, its blocks the pieces, all
//! within the limits, and its root says everything but the name.

use std::ops::Range;
use std::path::Path;

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;
use crate::disk::format::{Content, Piece};
use crate::disk::layers::{Layers, LayersError};
use crate::disk::manifest_error::ManifestError;
use crate::disk::{beside, build, check, json, merkle};

/// What a file is made of: pieces, their digests, and a root digest over everything but the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    content: Content,
    root: Digest,
}

impl Manifest {
    /// Makes the manifest of a file: reads and hashes all of it, on all cores. Several threads
    /// call `progress` with the number of bytes that they have hashed since their last call. The name is the given one, or the model's own, or the file's.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is changed meanwhile, or is a GGUF that is broken.
    pub fn of(
        path: &Path,
        largest_piece: u64,
        name: Option<&str>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, ManifestError> {
        Self::checked(build::content(path, largest_piece, name, progress)?)
    }

    /// Reads a manifest that anybody may have written.
    ///
    /// # Errors
    ///
    /// When it is not one, too large, of another format, or contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::checked(json::read(bytes)?)
    }

    /// As JSON: the same bytes on every machine.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json::write(&self.content)
    }

    /// The manifest that is kept beside the file, if it can still be that file's: the size fits, and the
    /// file was not changed since.
    #[must_use]
    pub fn beside(path: &Path) -> Option<Self> {
        let (json, size) = beside::read(path)?;
        Self::parse(&json).ok().filter(|manifest| manifest.size() == size)
    }

    /// Keeps the manifest beside its file.
    ///
    /// # Errors
    ///
    /// When the disk does not want to.
    pub fn keep_beside(&self, path: &Path) -> Result<(), ManifestError> {
        beside::write(path, &self.to_json())
    }

    /// The pieces of `layers`, and the header's. `header` is piece 0. What belongs to no layer (token
    /// embeddings, output, norms at the end) is not among them: see [`Manifest::pieces_of_no_layer`].
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF, or the model has fewer layers.
    pub fn pieces_of_layers(&self, header: &[u8], layers: Range<u32>) -> Result<Vec<u32>, LayersError> {
        Layers::read(&self.content, header)?.pieces_of(layers)
    }

    /// The pieces of what belongs to no layer, and the header's: who begins or ends a pass needs them.
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF.
    pub fn pieces_of_no_layer(&self, header: &[u8]) -> Result<Vec<u32>, LayersError> {
        Ok(Layers::read(&self.content, header)?.pieces_of_none())
    }

    /// How many layers the model has. `header` is piece 0.
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF.
    pub fn layers(&self, header: &[u8]) -> Result<u32, LayersError> {
        Ok(Layers::read(&self.content, header)?.count())
    }

    fn checked(content: Content) -> Result<Self, ManifestError> {
        check::check(&content)?;
        let root = merkle::root(&content);
        Ok(Self { content, root })
    }

    /// What it is known by: two files of the same root are the same file.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The name; safe as a file's. It is the one thing that the root does not say.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.content.name
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// No piece is larger, but the header may be.
    #[must_use]
    pub fn largest_piece(&self) -> u64 {
        self.content.largest_piece
    }

    /// What the file says of itself.
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
