//! The pieces that a machine needs to run some layers of a model.

use std::ops::Range;

use thiserror::Error;
use tightwad_gguf::GgufError;

use crate::disk::digest::Digest;
use crate::disk::format::{Content, Piece};
use crate::disk::gguf::{Gguf, Tensor};

/// The pieces of layers cannot be determined.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LayersError {
    /// The given bytes are not piece 0.
    #[error("these bytes are not the model's header: fetch piece 0 first")]
    WrongHeader,
    /// The file is not a GGUF.
    #[error("the file is not a GGUF, so it has no layers; pull the complete file")]
    NotGguf,
    /// The header is broken.
    #[error("the model's header is broken: {0}")]
    Gguf(#[from] GgufError),
    /// The model does not have these layers.
    #[error("layers {}..{}: the model has layers 0..{layers}", wanted.start, wanted.end)]
    OutOfRange {
        /// The requested layers.
        wanted: Range<u32>,
        /// The number of layers that the model has.
        layers: u32,
    },
}

/// The layers of a model, read from its header.
pub(crate) struct Layers<'a> {
    pieces: &'a [Piece],
    gguf: Gguf,
}

impl<'a> Layers<'a> {
    /// Parses `header`, which must be piece 0 of this content.
    pub(crate) fn read(content: &'a Content, header: &[u8]) -> Result<Self, LayersError> {
        let pieces = content.pieces.as_slice();
        let first = pieces.first().ok_or(LayersError::NotGguf)?;
        if header.len() as u64 != first.length || Digest::of(header) != first.digest {
            return Err(LayersError::WrongHeader);
        }
        match Gguf::read(header, content.size) {
            Ok(Some(gguf)) if gguf.data_offset == first.length => Ok(Self { pieces, gguf }),
            // The maker of the manifest did not treat the file as a GGUF.
            Ok(_) => Err(LayersError::NotGguf),
            Err(error) => Err(LayersError::Gguf(error)),
        }
    }

    /// The number of layers.
    pub(crate) fn count(&self) -> u32 {
        let last = self.gguf.tensors.iter().filter_map(|tensor| tensor.layer).max();
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// The pieces of `layers`, and the header's piece.
    pub(crate) fn pieces_of(&self, layers: Range<u32>) -> Result<Vec<u32>, LayersError> {
        let count = self.count();
        if layers.is_empty() || layers.end > count {
            return Err(LayersError::OutOfRange { wanted: layers, layers: count });
        }
        Ok(self.pieces_with(|tensor| tensor.layer.is_some_and(|layer| layers.contains(&layer))))
    }

    /// The pieces of the tensors outside all layers, and the header's piece.
    pub(crate) fn pieces_outside_layers(&self) -> Vec<u32> {
        self.pieces_with(|tensor| tensor.layer.is_none())
    }

    fn pieces_with(&self, matches: impl Fn(&Tensor) -> bool) -> Vec<u32> {
        let mut is_wanted = vec![false; self.pieces.len()];
        is_wanted[0] = true;
        for tensor in self.gguf.tensors.iter().filter(|tensor| matches(tensor)) {
            // An empty tensor counts for the piece at its offset.
            let end = tensor.offset + tensor.bytes.max(1);
            let from = self.pieces.partition_point(|piece| piece.offset + piece.length <= tensor.offset);
            let to = self.pieces.partition_point(|piece| piece.offset < end);
            is_wanted.get_mut(from..to).unwrap_or_default().fill(true);
        }
        (0..).zip(is_wanted).filter_map(|(index, is_wanted)| is_wanted.then_some(index)).collect()
    }
}
