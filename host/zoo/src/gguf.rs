//! Reading the tokenizer of a GGUF file, and writing GGUF files (version 3).

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use crate::tensor::Tensor;

/// Alignment of tensor data, in bytes: GGUF's default.
const ALIGNMENT: usize = 32;
/// Number of the value type "string".
const STRING: u32 = 8;
/// Number of the value type "array".
const ARRAY: u32 = 9;
/// Most bytes of a header that is read.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// Bytes of a value by its type's number; `None` for strings and arrays.
fn scalar_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// A key with its value as it lies in the file: type, then bytes.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    kind: u32,
    value: Vec<u8>,
}

/// The tokenizer's entries of a GGUF file.
#[derive(Debug)]
pub(crate) struct Source {
    pub tokenizer: Vec<Entry>,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
}

impl Source {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut header = Vec::new();
        File::open(path)?.take(MAX_HEADER_BYTES).read_to_end(&mut header)?;
        let mut cursor = Cursor { rest: &header };
        if cursor.bytes(4)? != b"GGUF" {
            return Err(invalid("the file does not begin with GGUF"));
        }
        cursor.u32()?;
        cursor.u64()?;
        let count = cursor.u64()?;
        let mut source = Self { tokenizer: Vec::new(), vocabulary: 0 };
        for _ in 0..count {
            let key = String::from_utf8_lossy(cursor.string()?).into_owned();
            let kind = cursor.u32()?;
            let before = cursor.rest;
            let length = cursor.skip(kind)?;
            let value = before[..before.len() - cursor.rest.len()].to_vec();
            if key == "tokenizer.ggml.tokens" {
                source.vocabulary = length;
            }
            if key.starts_with("tokenizer.") {
                source.tokenizer.push(Entry { key, kind, value });
            }
        }
        Ok(source)
    }
}

/// Reads a header from its beginning.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let split = self.rest.split_at_checked(count);
        let (taken, rest) = split.ok_or_else(|| invalid("the header ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> io::Result<u32> {
        let bytes = self.bytes(4)?.try_into().map_err(|_| invalid("a number is cut"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> io::Result<u64> {
        let bytes = self.bytes(8)?.try_into().map_err(|_| invalid("a number is cut"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u64()?;
        self.bytes(usize::try_from(length).map_err(|_| invalid("a string is too long"))?)
    }

    /// Passes over a value of type `kind`; the entries of an array, 1 for anything else.
    fn skip(&mut self, kind: u32) -> io::Result<u64> {
        match kind {
            STRING => self.string().map(|_| 1),
            ARRAY => {
                let (kind, count) = (self.u32()?, self.u64()?);
                for _ in 0..count {
                    self.skip(kind)?;
                }
                Ok(count)
            }
            other => {
                let bytes = scalar_bytes(other).ok_or_else(|| invalid("a value has an unknown type"))?;
                self.bytes(bytes).map(|_| 1)
            }
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A GGUF file to be written.
pub(crate) struct Model {
    architecture: &'static str,
    entries: Vec<Entry>,
    tensors: Vec<(String, Tensor)>,
}

impl Model {
    /// A model of `architecture` with the tokenizer of `source`.
    pub(crate) fn new(name: &str, architecture: &'static str, source: &Source) -> Self {
        let mut model = Self { architecture, entries: Vec::new(), tensors: Vec::new() };
        model.add("general.architecture", STRING, &string(architecture));
        model.add("general.name", STRING, &string(name));
        model.entries.extend(source.tokenizer.iter().cloned());
        model
    }

    fn add(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.entries.retain(|entry| entry.key != key);
        self.entries.push(Entry { key: key.to_owned(), kind, value: value.to_vec() });
    }

    /// Replaces the name of the pre-tokenizer.
    pub(crate) fn pre_tokenizer(&mut self, name: &str) {
        self.add("tokenizer.ggml.pre", STRING, &string(name));
    }

    /// Sets a number of the architecture.
    pub(crate) fn number(&mut self, key: &str, value: u32) {
        self.add(&format!("{}.{key}", self.architecture), 4, &value.to_le_bytes());
    }

    /// Sets a list of numbers of the architecture.
    pub(crate) fn numbers(&mut self, key: &str, values: &[i32]) {
        let mut bytes = 5_u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        self.add(&format!("{}.{key}", self.architecture), ARRAY, &bytes);
    }

    /// Sets a real number of the architecture.
    pub(crate) fn real(&mut self, key: &str, value: f32) {
        self.add(&format!("{}.{key}", self.architecture), 6, &value.to_le_bytes());
    }

    /// Adds a tensor.
    pub(crate) fn tensor(&mut self, name: String, tensor: Tensor) {
        self.tensors.push((name, tensor));
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut header = b"GGUF".to_vec();
        header.extend(3_u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            header.extend(string(&entry.key));
            header.extend(entry.kind.to_le_bytes());
            header.extend(&entry.value);
        }
        let mut offset = 0_usize;
        for (name, tensor) in &self.tensors {
            header.extend(string(name));
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|size| header.extend(size.to_le_bytes()));
            header.extend(tensor.format.number().to_le_bytes());
            header.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
        }
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&header)?;
        pad(&mut file, header.len())?;
        for (_, tensor) in &self.tensors {
            file.write_all(&tensor.bytes)?;
            pad(&mut file, tensor.bytes.len())?;
        }
        file.flush()
    }
}

fn pad(file: &mut impl Write, written: usize) -> io::Result<()> {
    file.write_all(&vec![0; written.next_multiple_of(ALIGNMENT) - written])
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
