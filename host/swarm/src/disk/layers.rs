//! Which pieces somebody needs who runs only some layers of a model.

use std::ops::Range;

use thiserror::Error;

use crate::disk::digest::Digest;
use crate::disk::gguf::{Gguf, GgufError, Tensor};
use crate::disk::manifest::Manifest;

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

impl Manifest {
    /// The pieces of `layers`, and the header's. `header` is piece 0. What belongs to no layer (token
    /// embeddings, output, norms at the end) is not among them: see [`Manifest::pieces_of_no_layer`].
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF, or the model has fewer layers.
    pub fn pieces_of_layers(&self, header: &[u8], layers: Range<u32>) -> Result<Vec<u32>, LayersError> {
        let gguf = self.header(header)?;
        let count = count(&gguf);
        if layers.is_empty() || layers.end > count {
            return Err(LayersError::Few { wanted: layers, layers: count });
        }
        Ok(self.pieces_of(&gguf, |tensor| tensor.layer().is_some_and(|layer| layers.contains(&layer))))
    }

    /// The pieces of what belongs to no layer, and the header's: who begins or ends a pass needs them.
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF.
    pub fn pieces_of_no_layer(&self, header: &[u8]) -> Result<Vec<u32>, LayersError> {
        let gguf = self.header(header)?;
        Ok(self.pieces_of(&gguf, |tensor| tensor.layer().is_none()))
    }

    /// How many layers the model has. `header` is piece 0.
    ///
    /// # Errors
    ///
    /// When `header` is not piece 0 of a GGUF.
    pub fn layers(&self, header: &[u8]) -> Result<u32, LayersError> {
        Ok(count(&self.header(header)?))
    }

    fn header(&self, header: &[u8]) -> Result<Gguf, LayersError> {
        let first = self.pieces.first().ok_or(LayersError::NoGguf)?;
        if header.len() as u64 != first.length || Digest::of(header) != first.digest {
            return Err(LayersError::NotTheHeader);
        }
        match Gguf::read(header, self.size) {
            Ok(Some(gguf)) if gguf.data == first.length => Ok(gguf),
            // It is cut as something else.
            Ok(_) => Err(LayersError::NoGguf),
            Err(error) => Err(LayersError::Broken(error)),
        }
    }

    fn pieces_of(&self, gguf: &Gguf, wanted: impl Fn(&Tensor) -> bool) -> Vec<u32> {
        let mut found = vec![false; self.pieces.len()];
        found[0] = true;
        for tensor in gguf.tensors.iter().filter(|tensor| wanted(tensor)) {
            // Even one of no bytes has a place.
            let end = tensor.offset + tensor.bytes.max(1);
            let from = self.pieces.partition_point(|piece| piece.offset + piece.length <= tensor.offset);
            let to = self.pieces.partition_point(|piece| piece.offset < end);
            found.get_mut(from..to).unwrap_or_default().fill(true);
        }
        (0..).zip(found).filter_map(|(index, found)| found.then_some(index)).collect()
    }
}

fn count(gguf: &Gguf) -> u32 {
    gguf.tensors.iter().filter_map(Tensor::layer).max().map_or(0, |last| last.saturating_add(1))
}
