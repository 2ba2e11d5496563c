//! The header of a GGUF (versions 2 and 3, little-endian), read without trust: nothing in it makes us
//! allocate more than a bounded number of names, or read on for ever.

use std::io::BufRead;

use crate::disk::facts::{Facts, TEXT, clean};
use crate::disk::gguf_error::{GgufError, MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_TENSORS};
use crate::disk::input::Input;
use crate::disk::value;
use crate::disk::value::Value;

/// Longest header: the first piece holds it, and no piece is longer.
pub(crate) const HEADER: u64 = 1 << 30;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gguf {
    pub(crate) facts: Facts,
    /// Where the first tensor begins; all before it is header.
    pub(crate) data: u64,
    /// By offset; together they reach from `data` to the end of the file, without gaps.
    pub(crate) tensors: Vec<Tensor>,
}

/// A run of the file, with the padding behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Tensor {
    /// `N` of a name such as `blk.N.attn_q.weight`.
    pub(crate) fn layer(&self) -> Option<u32> {
        let (number, _) = self.name.strip_prefix("blk.")?.split_once('.')?;
        number.parse().ok()
    }
}

impl Gguf {
    /// Reads the header of a file of `size` bytes; `None`: it is no GGUF that we know.
    pub(crate) fn read(from: impl BufRead, size: u64) -> Result<Option<Self>, GgufError> {
        let mut input = Input::new(from, size, HEADER);
        if size < 24 || input.array()? != *b"GGUF" || !matches!(input.u32()?, 2 | 3) {
            return Ok(None);
        }
        let (tensors, pairs) = (input.u64()?, input.u64()?);
        if tensors > MAX_TENSORS {
            return Err(GgufError::Tensors(tensors));
        }
        let mut said = Said::default();
        for _ in 0..pairs {
            said.pair(&mut input)?;
        }
        // Growing as they come: a file must have the bytes that it makes us keep.
        let mut found = Vec::new();
        for _ in 0..tensors {
            found.push(tensor(&mut input)?);
        }
        let alignment = said.alignment()?;
        let data = input.position().next_multiple_of(alignment).min(size);
        let (data, tensors) = lay_out(found, data, size)?;
        Ok(Some(Self { facts: said.facts(), data, tensors }))
    }
}

/// What the keys said that matter here.
#[derive(Default)]
struct Said {
    facts: Facts,
    alignment: Option<u64>,
    /// `context_length` by architecture: which is the file's is known in the end.
    contexts: Vec<(String, u64)>,
}

impl Said {
    fn pair(&mut self, input: &mut Input<impl BufRead>) -> Result<(), GgufError> {
        let key = clean(&input.string(TEXT)?);
        let value = value::read(input, &key)?;
        match (key.as_str(), value) {
            ("general.architecture", Value::Text { start, .. }) => {
                self.facts.architecture = Some(clean(&start));
            }
            ("general.name", Value::Text { start, .. }) => self.facts.name = Some(clean(&start)),
            ("tokenizer.chat_template", Value::Text { digest, .. }) => {
                self.facts.chat_template = Some(digest);
            }
            ("general.file_type", Value::Number(number)) => {
                self.facts.file_type = u32::try_from(number).ok();
            }
            ("general.alignment", Value::Number(number)) => self.alignment = Some(number),
            (_, Value::Number(number)) if self.contexts.len() < 16 => {
                if let Some(architecture) = key.strip_suffix(".context_length") {
                    self.contexts.push((architecture.to_owned(), number));
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn alignment(&self) -> Result<u64, GgufError> {
        let alignment = self.alignment.unwrap_or(32);
        if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT {
            Ok(alignment)
        } else {
            Err(GgufError::Alignment(alignment))
        }
    }

    fn facts(mut self) -> Facts {
        let own = self.contexts.iter().find(|(of, _)| Some(of) == self.facts.architecture.as_ref());
        self.facts.context = own.map(|(_, tokens)| *tokens);
        self.facts
    }
}

/// A tensor's name, and where it begins behind the header.
fn tensor(input: &mut Input<impl BufRead>) -> Result<(String, u64), GgufError> {
    let name = clean(&input.string(TEXT)?);
    let dimensions = input.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(GgufError::Dimensions { name, dimensions });
    }
    // The sizes, and the type: how long a tensor is, its neighbour says.
    input.skip(8 * u64::from(dimensions) + 4)?;
    Ok((name, input.u64()?))
}

/// Where the tensors begin and end in the file, when they begin at `data`.
fn lay_out(mut found: Vec<(String, u64)>, data: u64, size: u64) -> Result<(u64, Vec<Tensor>), GgufError> {
    found.sort_by_key(|(_, offset)| *offset);
    let gap = found.first().map_or(0, |(_, offset)| *offset);
    if data.saturating_add(gap) > HEADER {
        return Err(GgufError::Long);
    }
    if let Some((name, _)) = found.iter().find(|(_, offset)| *offset > size - data) {
        return Err(GgufError::Behind(name.clone()));
    }
    let ends: Vec<u64> = found.iter().skip(1).map(|(_, offset)| data + offset).chain([size]).collect();
    let tensors: Vec<Tensor> = found
        .into_iter()
        .zip(ends)
        .map(|((name, offset), end)| {
            let offset = data + offset;
            Tensor { name, offset, bytes: end - offset }
        })
        .collect();
    Ok((tensors.first().map_or(size, |first| first.offset), tensors))
}

#[cfg(test)]
mod tests;
