//! Small GGUF files for tests, and random bytes to fill them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by tests inside and outside")]

use std::path::{Path, PathBuf};

/// Builder of a GGUF file.
#[derive(Clone, Default)]
pub struct Model {
    pairs: Vec<u8>,
    count: u64,
    tensors: Vec<(String, Vec<u8>)>,
}

impl Model {
    /// A model with a name, a quantization, a context and a list of tokens.
    pub fn new(name: &str) -> Self {
        Self::default()
            .text("general.architecture", "llama")
            .text("general.name", name)
            .number("general.file_type", 15)
            .number("llama.context_length", 4096)
            .texts("tokenizer.ggml.tokens", &["a", "b", ""])
    }

    /// A model of four layers, with small and large tensors.
    pub fn layered(name: &str, template: &str) -> Self {
        let mut model = Self::new(name).text("tokenizer.chat_template", template);
        model = model.tensor("token_embd.weight", random_bytes(1, 1_200_000));
        for layer in 0..4_u64 {
            for (tensor, bytes) in [("attn_norm", 256), ("attn_q", 300_000), ("ffn_up", 1_500_000)] {
                let seed = 10 * layer + bytes as u64;
                model = model.tensor(&format!("blk.{layer}.{tensor}.weight"), random_bytes(seed, bytes));
            }
        }
        model
            .tensor("output_norm.weight", random_bytes(2, 256))
            .tensor("output.weight", random_bytes(3, 700_000))
    }

    /// Adds a metadata pair with a text.
    pub fn text(self, key: &str, value: &str) -> Self {
        self.pair(key, 8, &string(value))
    }

    /// Adds a metadata pair with a number.
    pub fn number(self, key: &str, value: u32) -> Self {
        self.pair(key, 4, &value.to_le_bytes())
    }

    /// Adds a metadata pair with a list of texts.
    pub fn texts(self, key: &str, values: &[&str]) -> Self {
        let mut array = 8_u32.to_le_bytes().to_vec();
        array.extend((values.len() as u64).to_le_bytes());
        array.extend(values.iter().flat_map(|value| string(value)));
        self.pair(key, 9, &array)
    }

    /// Adds a metadata pair of any type.
    pub fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.pairs.extend(string(key));
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(value);
        self.count += 1;
        self
    }

    /// Adds a tensor, or replaces its bytes.
    pub fn tensor(mut self, name: &str, bytes: Vec<u8>) -> Self {
        match self.tensors.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = bytes,
            None => self.tensors.push((name.to_owned(), bytes)),
        }
        self
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend(self.count.to_le_bytes());
        file.extend(&self.pairs);
        let mut offset = 0;
        for (name, bytes) in &self.tensors {
            file.extend(string(name));
            file.extend(1_u32.to_le_bytes());
            file.extend((bytes.len() as u64).to_le_bytes());
            file.extend(24_u32.to_le_bytes());
            file.extend(u64::to_le_bytes(offset));
            offset += bytes.len().next_multiple_of(32) as u64;
        }
        for (_, bytes) in &self.tensors {
            file.resize(file.len().next_multiple_of(32), 0);
            file.extend(bytes);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file
    }

    /// Writes the file as `name` into `directory`.
    pub fn save(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// Pseudo-random bytes: equal seeds give equal bytes.
pub fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}
