//! Reads the tokenizer of a GGUF file, and writes GGUF files (version 3).

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::tensor::Tensor;

/// The alignment of tensor data in bytes, GGUF's default.
const ALIGNMENT_BYTES: usize = 32;
/// The number of the value type "bool".
const BOOL_TYPE: u32 = 7;
/// The number of the value type "string".
const STRING_TYPE: u32 = 8;
/// The number of the value type "array".
const ARRAY_TYPE: u32 = 9;
/// The bytes before the entries of an array: their type, and their number.
const ARRAY_HEADER_BYTES: usize = 12;
/// The number of the token type "unused".
const UNUSED_TOKEN: u32 = 5;
/// The maximum size of a header.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// The size of a value by the number of its type; `None` for strings and arrays.
fn scalar_bytes(value_type: u32) -> Option<usize> {
    match value_type {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// A key and its value. The value is stored as in the file: type, then bytes.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    value_type: u32,
    value: Vec<u8>,
}

/// The tokenizer of a GGUF file.
#[derive(Debug)]
pub(crate) struct TokenizerSource {
    pub entries: Vec<Entry>,
    /// The number of tokens of the vocabulary.
    pub vocabulary_size: u64,
}

impl TokenizerSource {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut header = Vec::new();
        File::open(path)?.take(MAX_HEADER_BYTES).read_to_end(&mut header)?;
        let mut cursor = Cursor { unread: &header };
        if cursor.bytes(4)? != b"GGUF" {
            return Err(invalid("the file does not start with GGUF"));
        }
        cursor.u32()?;
        cursor.u64()?;
        let count = cursor.u64()?;
        let mut source = Self { entries: Vec::new(), vocabulary_size: 0 };
        for _ in 0..count {
            let key = String::from_utf8_lossy(cursor.string()?).into_owned();
            let value_type = cursor.u32()?;
            let start = cursor.unread;
            let length = cursor.skip(value_type)?;
            let value = start[..start.len() - cursor.unread.len()].to_vec();
            if key == "tokenizer.ggml.tokens" {
                source.vocabulary_size = length;
            }
            if key.starts_with("tokenizer.") {
                source.entries.push(Entry { key, value_type, value });
            }
        }
        Ok(source)
    }

    /// Adds `count` unused tokens at the end, as converters do to round the size of a vocabulary up.
    pub(crate) fn pad(&mut self, count: u64) {
        let first = self.vocabulary_size;
        for entry in &mut self.entries {
            let padding: Vec<u8> = match entry.key.as_str() {
                "tokenizer.ggml.tokens" => (first..first + count)
                    .flat_map(|token| {
                        let text = format!("[PAD{token}]");
                        [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat()
                    })
                    .collect(),
                "tokenizer.ggml.scores" => vec![0; 4 * count as usize],
                "tokenizer.ggml.token_type" => UNUSED_TOKEN.to_le_bytes().repeat(count as usize),
                _ => continue,
            };
            entry.value[4..ARRAY_HEADER_BYTES].copy_from_slice(&(first + count).to_le_bytes());
            entry.value.extend(padding);
        }
        self.vocabulary_size += count;
    }

    /// Keeps the first `count` tokens, and the merges of a byte pair encoding that lead to them.
    pub(crate) fn truncate(&mut self, count: u64) -> io::Result<()> {
        let mut tokens = self.strings("tokenizer.ggml.tokens")?;
        tokens.truncate(count as usize);
        let mut merges = self.strings("tokenizer.ggml.merges")?;
        let kept: HashSet<&str> = tokens.iter().map(String::as_str).collect();
        merges.retain(|merge| kept.contains(merge.replace(' ', "").as_str()));
        for entry in &mut self.entries {
            let texts = match entry.key.as_str() {
                "tokenizer.ggml.tokens" => &tokens,
                "tokenizer.ggml.merges" => &merges,
                "tokenizer.ggml.scores" | "tokenizer.ggml.token_type" => {
                    entry.value.truncate(ARRAY_HEADER_BYTES + 4 * count as usize);
                    entry.value[4..ARRAY_HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
                    continue;
                }
                _ => continue,
            };
            entry.value.truncate(4);
            entry.value.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| entry.value.extend(string(text)));
        }
        self.vocabulary_size = count;
        Ok(())
    }

    /// The strings of the array `key`; none if the file has no such key.
    fn strings(&self, key: &str) -> io::Result<Vec<String>> {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        let unread = entry.and_then(|entry| entry.value.get(ARRAY_HEADER_BYTES..));
        let mut cursor = Cursor { unread: unread.unwrap_or_default() };
        let mut strings = Vec::new();
        while !cursor.unread.is_empty() {
            strings.push(String::from_utf8_lossy(cursor.string()?).into_owned());
        }
        Ok(strings)
    }
}

/// Reads a header from its start.
struct Cursor<'a> {
    unread: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let split = self.unread.split_at_checked(count);
        let (bytes, unread) = split.ok_or_else(|| invalid("the header ends too early"))?;
        self.unread = unread;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        let bytes = self.bytes(4)?.try_into().map_err(|_| invalid("a number is incomplete"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> io::Result<u64> {
        let bytes = self.bytes(8)?.try_into().map_err(|_| invalid("a number is incomplete"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u64()?;
        self.bytes(usize::try_from(length).map_err(|_| invalid("a string is too long"))?)
    }

    /// Skips a value. Returns the number of entries of an array, and 1 for other values.
    fn skip(&mut self, value_type: u32) -> io::Result<u64> {
        match value_type {
            STRING_TYPE => self.string().map(|_| 1),
            ARRAY_TYPE => {
                let (entry_type, count) = (self.u32()?, self.u64()?);
                for _ in 0..count {
                    self.skip(entry_type)?;
                }
                Ok(count)
            }
            scalar_type => {
                let bytes =
                    scalar_bytes(scalar_type).ok_or_else(|| invalid("a value has an unknown type"))?;
                self.bytes(bytes).map(|_| 1)
            }
        }
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The content of a GGUF file, for tests that change a model.
#[derive(Debug, Clone)]
pub struct GgufFile {
    architecture: &'static str,
    entries: Vec<Entry>,
    tensors: Vec<(String, Tensor)>,
}

impl GgufFile {
    /// A model of `architecture` with the tokenizer of `source`.
    pub(crate) fn new(name: &str, architecture: &'static str, source: &TokenizerSource) -> Self {
        let mut writer = Self { architecture, entries: Vec::new(), tensors: Vec::new() };
        writer.set_text("general.architecture", architecture);
        writer.set_text("general.name", name);
        writer.entries.extend(source.entries.iter().cloned());
        writer
    }

    /// Sets a value, and replaces an earlier value of the key.
    fn set(&mut self, key: &str, value_type: u32, value: &[u8]) {
        self.entries.retain(|entry| entry.key != key);
        self.entries.push(Entry { key: key.to_owned(), value_type, value: value.to_vec() });
    }

    /// Sets a text, by its complete key.
    pub fn set_text(&mut self, key: &str, value: &str) {
        self.set(key, STRING_TYPE, &string(value));
    }

    /// Sets an unsigned number of 32 bits, by its complete key.
    pub fn set_number(&mut self, key: &str, value: u32) {
        self.set(key, 4, &value.to_le_bytes());
    }

    /// Sets a list of signed numbers of 32 bits, by its complete key.
    pub fn set_numbers(&mut self, key: &str, values: &[i32]) {
        let mut bytes = 5_u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        self.set(key, ARRAY_TYPE, &bytes);
    }

    /// Removes all keys that begin with `prefix`.
    pub fn remove(&mut self, prefix: &str) {
        self.entries.retain(|entry| !entry.key.starts_with(prefix));
    }

    /// Changes a tensor: its sizes and its bytes in the file.
    pub fn edit_tensor(&mut self, name: &str, edit: impl FnOnce(&mut Vec<u64>, &mut Vec<u8>)) {
        if let Some((_, tensor)) = self.tensors.iter_mut().find(|(other, _)| other == name) {
            edit(&mut tensor.shape, &mut tensor.bytes);
        }
    }

    /// Writes the model as `count` parts into `folder`, as `llama-gguf-split` does. Returns the paths of the parts.
    ///
    /// # Errors
    ///
    /// Returns the file system's error.
    pub fn write_parts(mut self, folder: &Path, name: &str, count: u16) -> io::Result<Vec<PathBuf>> {
        let tensors = std::mem::take(&mut self.tensors);
        let per_part = tensors.len().div_ceil(usize::from(count));
        let total = tensors.len() as i32;
        let mut tensors = tensors.into_iter();
        let mut paths = Vec::new();
        for number in 0..count {
            self.set("split.no", 2, &number.to_le_bytes());
            self.set("split.count", 2, &count.to_le_bytes());
            self.set("split.tensors.count", 5, &total.to_le_bytes());
            self.tensors = tensors.by_ref().take(per_part).collect();
            let path = folder.join(format!("{name}-{:05}-of-{count:05}.gguf", number + 1));
            self.write(&path)?;
            paths.push(path);
            // Only the first part has the metadata of the model.
            self.entries.clear();
        }
        Ok(paths)
    }

    /// Replaces the name of the pre-tokenizer.
    pub(crate) fn set_pre_tokenizer(&mut self, name: &str) {
        self.set_text("tokenizer.ggml.pre", name);
    }

    /// Sets an integer key of the architecture.
    pub(crate) fn set_u32(&mut self, key: &str, value: u32) {
        self.set_number(&format!("{}.{key}", self.architecture), value);
    }

    /// Sets a key of the architecture to a list of integers.
    pub(crate) fn set_i32_list(&mut self, key: &str, values: &[i32]) {
        self.set_numbers(&format!("{}.{key}", self.architecture), values);
    }

    /// Sets a floating-point key of the architecture.
    pub(crate) fn set_f32(&mut self, key: &str, value: f32) {
        self.set(&format!("{}.{key}", self.architecture), 6, &value.to_le_bytes());
    }

    /// Sets a boolean key of the architecture.
    pub(crate) fn set_bool(&mut self, key: &str, value: bool) {
        self.set(&format!("{}.{key}", self.architecture), BOOL_TYPE, &[u8::from(value)]);
    }

    /// Adds a tensor.
    pub(crate) fn add_tensor(&mut self, name: String, tensor: Tensor) {
        self.tensors.push((name, tensor));
    }

    /// Replaces an existing tensor.
    pub(crate) fn replace_tensor(&mut self, name: &str, tensor: Tensor) {
        if let Some((_, replaced)) = self.tensors.iter_mut().find(|(other, _)| other == name) {
            *replaced = tensor;
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// Returns the file system's error.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut header = b"GGUF".to_vec();
        header.extend(3_u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            header.extend(string(&entry.key));
            header.extend(entry.value_type.to_le_bytes());
            header.extend(&entry.value);
        }
        let mut offset = 0_usize;
        for (name, tensor) in &self.tensors {
            header.extend(string(name));
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|size| header.extend(size.to_le_bytes()));
            header.extend(tensor.format.ggml_type().to_le_bytes());
            header.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(ALIGNMENT_BYTES);
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

/// Writes zeros up to the next multiple of the alignment.
fn pad(file: &mut impl Write, written: usize) -> io::Result<()> {
    file.write_all(&vec![0; written.next_multiple_of(ALIGNMENT_BYTES) - written])
}

/// A string as in the file: length, then bytes.
fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
