//! Which pieces somebody needs who runs only some layers of a model.

use std::ops::Range;

use thiserror::Error;

use crate::disk::digest::Digest;
use crate::disk::format::{Content, Piece};
use crate::disk::gguf::{Gguf, Tensor};
use crate::disk::gguf_error::GgufError;

/// The pieces cannot be told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LayersError {
    /// The bytes are not piece 0.
    #[error("these bytes are not the model's header: fetch piece 0 first")]
    NotTheHeader,
    /// The file has no layers.
    #[error("the file is not a GGUF: it has no layers, only a whole")]
    NoGguf,
    /// The header is broken.
    #[error("the model's header is broken: {0}")]
    Broken(#[from] GgufError),
    /// The model has fewer layers.
    #[error("layers {}..{}: the model has layers 0..{layers}", wanted.start, wanted.end)]
    Few {
        /// What was asked for.
        wanted: Range<u32>,
        /// How many the model has.
        layers: u32,
    },
}

/// The layers of a model, read from its header.
pub(crate) struct Layers<'a> {
    pieces: &'a [Piece],
    gguf: Gguf,
}

impl<'a> Layers<'a> {
    /// Reads `header`, which must be piece 0 of this content.
    pub(crate) fn read(content: &'a Content, header: &[u8]) -> Result<Self, LayersError> {
        let pieces = content.pieces.as_slice();
        let first = pieces.first().ok_or(LayersError::NoGguf)?;
        if header.len() as u64 != first.length || Digest::of(header) != first.digest {
            return Err(LayersError::NotTheHeader);
        }
        match Gguf::read(header, content.size) {
            Ok(Some(gguf)) if gguf.data == first.length => Ok(Self { pieces, gguf }),
            // The file is cut as one that is not a GGUF.
            Ok(_) => Err(LayersError::NoGguf),
            Err(error) => Err(LayersError::Broken(error)),
        }
    }

    /// The number of layers.
    pub(crate) fn count(&self) -> u32 {
        let last = self.gguf.tensors.iter().filter_map(Tensor::layer).max();
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// The pieces of `layers`, and the header's.
    pub(crate) fn pieces_of(&self, layers: Range<u32>) -> Result<Vec<u32>, LayersError> {
        let count = self.count();
        if layers.is_empty() || layers.end > count {
            return Err(LayersError::Few { wanted: layers, layers: count });
        }
        Ok(self.pieces_with(|tensor| tensor.layer().is_some_and(|layer| layers.contains(&layer))))
    }

    /// The pieces of the tensors that belong to no layer, and the header's.
    pub(crate) fn pieces_of_none(&self) -> Vec<u32> {
        self.pieces_with(|tensor| tensor.layer().is_none())
    }

    fn pieces_with(&self, wanted: impl Fn(&Tensor) -> bool) -> Vec<u32> {
        let mut found = vec![false; self.pieces.len()];
        found[0] = true;
        for tensor in self.gguf.tensors.iter().filter(|tensor| wanted(tensor)) {
            // Even one of no bytes has a place.
            let end = tensor.offset + tensor.bytes.max(1);
            let from = self.pieces.partition_point(|piece| piece.offset + piece.length <= tensor.offset);
            let to = self.pieces.partition_point(|piece| piece.offset < end);
            found.get_mut(from..to).unwrap_or_default().fill(true);
        }
        (0..).zip(found).filter_map(|(index, found)| found.then_some(index)).collect()
    }
}
