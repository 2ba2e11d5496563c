//! The facts and the places of tensors in an untrusted GGUF.

use std::io::BufRead;

use tightwad_gguf::{GgufError, Header, MAX_HEADER_BYTES, Value};

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;

/// The parts of a header that a manifest needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gguf {
    pub(crate) facts: Facts,
    /// `split.no` and `split.count` of one part of a split model.
    pub(crate) split: Option<Split>,
    /// The offset of the first tensor. All bytes before it belong to the header.
    pub(crate) data_offset: u64,
    /// The tensors by offset. The tensors cover the file from `data_offset` to its end, without gaps.
    pub(crate) tensors: Vec<Tensor>,
}

/// The place of a file in a split model. llama.cpp finds the other parts by the end of the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    /// The number of the part, from 1.
    pub(crate) part: u64,
    /// The number of parts; at least 2.
    pub(crate) count: u64,
}

/// The bytes of a tensor, and the padding after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// The layer that the tensor belongs to.
    pub(crate) layer: Option<u32>,
}

impl Gguf {
    /// Reads the header of a file of `size` bytes; `None`: the file is not a GGUF of a known version.
    pub(crate) fn read(from: impl BufRead, size: u64) -> Result<Option<Self>, GgufError> {
        let Some(header) = Header::read(from, size)? else { return Ok(None) };
        let (data_offset, tensors) = place_tensors(&header, size)?;
        Ok(Some(Self { facts: facts(&header), split: split(&header), data_offset, tensors }))
    }
}

fn split(header: &Header) -> Option<Split> {
    let count = header.number("split.count").filter(|count| *count > 1)?;
    Some(Split { part: header.number("split.no")?.saturating_add(1), count })
}

fn facts(header: &Header) -> Facts {
    let text = |key| header.text(key).map(str::to_owned);
    let architecture = text("general.architecture");
    let context_key = architecture.as_ref().map(|architecture| format!("{architecture}.context_length"));
    Facts {
        name: text("general.name"),
        file_type: header.number("general.file_type").and_then(|number| u32::try_from(number).ok()),
        context: context_key.and_then(|key| header.number(&key)),
        chat_template: match header.value("tokenizer.chat_template") {
            Some(Value::Text { sha256, .. }) => Some(Digest(*sha256)),
            _ => None,
        },
        architecture,
    }
}

/// The tensors' positions in the file. Offsets in the header count from the end of the header.
fn place_tensors(header: &Header, size: u64) -> Result<(u64, Vec<Tensor>), GgufError> {
    let mut tensors: Vec<_> = header.tensors.iter().collect();
    tensors.sort_by_key(|tensor| tensor.offset);
    let data_offset = header.data_offset.min(size);
    let gap = tensors.first().map_or(0, |tensor| tensor.offset);
    if data_offset.saturating_add(gap) > MAX_HEADER_BYTES {
        return Err(GgufError::HeaderTooLong);
    }
    if let Some(tensor) = tensors.iter().find(|tensor| tensor.offset > size - data_offset) {
        return Err(GgufError::TensorPastEnd(tensor.name.clone()));
    }
    let ends: Vec<u64> =
        tensors.iter().skip(1).map(|tensor| data_offset + tensor.offset).chain([size]).collect();
    let tensors: Vec<Tensor> = tensors
        .into_iter()
        .zip(ends)
        .map(|(tensor, end)| {
            let offset = data_offset + tensor.offset;
            Tensor { offset, bytes: end - offset, layer: tensor.layer() }
        })
        .collect();
    Ok((tensors.first().map_or(size, |first| first.offset), tensors))
}

#[cfg(test)]
mod tests;
