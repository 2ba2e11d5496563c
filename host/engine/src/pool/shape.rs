//! The sizes of a model, from the header of its file.

use std::path::Path;

use tightwad_gguf::Header;

use crate::error::LoadError;
use crate::file::content::check_model;
use crate::file::model_file::ModelFile;

/// Bytes of a number in the KV cache.
const CACHE_ELEMENT_BYTES: u64 = 2;
/// Bytes of a number in a recurrent state.
const STATE_ELEMENT_BYTES: u64 = 4;
/// The beginnings of the names of tensors in recurrent parts of a layer.
const RECURRENT_TENSORS: [&str; 3] = ["ssm_", "shortconv.", "time_mix_"];
/// The maximum number of layers (`LLAMA_MAX_LAYERS` of llama.cpp).
const MAX_LAYERS: u32 = 512;

/// One repeating layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    /// Bytes of the layer's weights.
    pub weight_bytes: u64,
    /// Bytes of the layer's experts; 0 if the model is not a mixture of experts.
    pub expert_bytes: u64,
    /// Cache bytes per token.
    pub cache_bytes_per_token: u64,
    /// Bytes of the recurrent state of one sequence; 0: the layer has none.
    pub state_bytes: u64,
}

/// The number of snapshots of each sequence's recurrent state in a pool. The workers lend their memory, so it does not
/// depend on that of the host.
pub(crate) const POOL_SNAPSHOTS: u32 = 4;

impl LayerShape {
    /// Bytes of the layer's cache in a pool with `slots` sequences of `context` tokens: keys and values, and recurrent
    /// states with their snapshots.
    #[must_use]
    pub fn pooled_cache_bytes(&self, context: u64, slots: u32) -> u64 {
        let states = self.state_bytes.saturating_mul(1 + u64::from(POOL_SNAPSHOTS));
        let tokens = self.cache_bytes_per_token.saturating_mul(context);
        tokens.saturating_add(states).saturating_mul(u64::from(slots))
    }
}

/// The sizes of a model that matter for its placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// llama.cpp's name of the architecture.
    pub architecture: String,
    /// The repeating layers, in order.
    pub layers: Vec<LayerShape>,
    /// Bytes of the embeddings.
    pub embedding_bytes: u64,
    /// Bytes of the output head. A tied head has the bytes of the embeddings.
    pub output_bytes: u64,
    /// Numbers per token between two layers.
    pub embedding_length: u32,
    /// Attention heads.
    pub head_count: u32,
    /// Numbers per token inside the feed-forward part.
    pub feed_forward_length: u32,
    /// Number of tokens in the vocabulary.
    pub vocabulary_size: u32,
    /// The trained context length in tokens.
    pub trained_context: u32,
    /// The names of all tensors.
    pub tensor_names: Vec<String>,
}

impl ModelShape {
    /// Reads the header of the GGUF file at `path`, and of all its parts.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the file is not a model that generates text, or if its header lacks a required key.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let file = ModelFile::open(path)?;
        check_model(&file)?;
        Self::of(&file)
    }

    /// The sizes of `file`.
    pub(crate) fn of(file: &ModelFile) -> Result<Self, LoadError> {
        let required = |key: &str, value: Option<u32>| {
            let reason = || format!("its header has no usable '{key}'");
            value.ok_or_else(|| LoadError::Malformed { path: file.path().to_owned(), reason: reason() })
        };
        let header = file.header();
        let architecture = header.text("general.architecture").unwrap_or_default().to_owned();
        let key = |name: &str| format!("{architecture}.{name}");
        let optional = |name: &str| number_at(header, &key(name), 0);
        let layer_count = required(&key("block_count"), optional("block_count"))?;
        if layer_count > MAX_LAYERS {
            required(&key("block_count"), None)?;
        }
        let embedding_length = required(&key("embedding_length"), optional("embedding_length"))?;
        let tokens = header.array("tokenizer.ggml.tokens").map(|tokens| tokens.count);
        let tokens = tokens.and_then(|count| u32::try_from(count).ok());
        let mut shape = Self {
            layers: layers(header, &architecture, layer_count, embedding_length),
            embedding_bytes: 0,
            output_bytes: 0,
            embedding_length,
            head_count: optional("attention.head_count").unwrap_or(0).max(1),
            feed_forward_length: optional("feed_forward_length")
                .unwrap_or(embedding_length.saturating_mul(4)),
            vocabulary_size: required("tokenizer.ggml.tokens", tokens)?,
            trained_context: optional("context_length").unwrap_or(0),
            tensor_names: Vec::new(),
            architecture,
        };
        let state_bytes = state_bytes(header, &shape.architecture, embedding_length);
        for tensor in file.tensors() {
            shape.add_tensor(tensor.name.clone(), tensor.byte_count().unwrap_or(0), state_bytes);
        }
        if shape.output_bytes < shape.embedding_bytes / 4 {
            shape.output_bytes += shape.embedding_bytes;
        }
        Ok(shape)
    }

    /// Adds a tensor. A layer with a tensor of a recurrent part has a state of `state_bytes` bytes.
    fn add_tensor(&mut self, name: String, bytes: u64, state_bytes: u64) {
        let numbered = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let layer = numbered.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest)));
        match layer.and_then(|(number, rest)| Some((self.layers.get_mut(number)?, rest))) {
            Some((layer, rest)) => {
                layer.weight_bytes += bytes;
                if RECURRENT_TENSORS.iter().any(|prefix| rest.starts_with(prefix)) {
                    layer.state_bytes = state_bytes;
                }
                if rest.contains("_exps") {
                    layer.expert_bytes += bytes;
                }
            }
            None if name.starts_with("output") => self.output_bytes += bytes,
            None => self.embedding_bytes += bytes,
        }
        self.tensor_names.push(name);
    }

    /// Bytes of the complete model. A tied head counts once.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.weight_bytes).sum::<u64>()
            + self.embedding_bytes.max(self.output_bytes)
    }
}

/// The layers of a model of `architecture`, without the bytes of their weights.
fn layers(header: &Header, architecture: &str, count: u32, embedding_length: u32) -> Vec<LayerShape> {
    let number = |name: &str, index: u32| number_at(header, &format!("{architecture}.{name}"), index);
    let heads = number("attention.head_count", 0).unwrap_or(0);
    // Recurrent layers have no KV cache. In hybrid models, only every `attention_interval`-th layer has one.
    let attention_interval = number("full_attention_interval", 0).unwrap_or(1).max(1);
    let recurrent = heads == 0 || ["mamba", "rwkv"].iter().any(|name| architecture.starts_with(name));
    let heads = heads.max(1);
    let key_length = number("attention.key_length", 0).unwrap_or(embedding_length / heads);
    let value_length = number("attention.value_length", 0).unwrap_or(key_length);
    let layer = |index: u32| {
        let attends = !recurrent && (index + 1).is_multiple_of(attention_interval);
        let kv_heads = number("attention.head_count_kv", index).unwrap_or(heads);
        let numbers = u64::from(key_length) + u64::from(value_length);
        let numbers = if attends { u64::from(kv_heads).saturating_mul(numbers) } else { 0 };
        let cache_bytes_per_token = numbers.saturating_mul(CACHE_ELEMENT_BYTES);
        LayerShape { weight_bytes: 0, expert_bytes: 0, cache_bytes_per_token, state_bytes: 0 }
    };
    (0..count).map(layer).collect()
}

/// Bytes of the recurrent state of one sequence in one layer, as llama.cpp computes it (`llama-hparams.cpp`: `n_embd_r`
/// for the convolution, `n_embd_s` for the state).
fn state_bytes(header: &Header, architecture: &str, embedding_length: u32) -> u64 {
    let number = |name: &str| number_at(header, &format!("{architecture}.{name}"), 0).map(u64::from);
    let (embedding_length, kernel) = (u64::from(embedding_length), number("ssm.conv_kernel").unwrap_or(0));
    let product = |numbers: &[u64]| numbers.iter().fold(1_u64, |product, n| product.saturating_mul(*n));
    let numbers = if let Some(head_size) = number("wkv.head_size") {
        product(&[embedding_length, head_size.saturating_add(number("token_shift_count").unwrap_or(2))])
    } else if let Some(length) = number("shortconv.l_cache") {
        product(&[embedding_length, length.saturating_sub(1)])
    } else if let Some(head_size) = number("kda.head_dim") {
        let heads = number("attention.head_count").unwrap_or(1);
        let convolution = product(&[3, kernel.saturating_sub(1), heads, head_size]);
        convolution.saturating_add(product(&[heads, head_size, head_size]))
    } else {
        let (inner, state) = (number("ssm.inner_size").unwrap_or(0), number("ssm.state_size").unwrap_or(0));
        let groups = product(&[2, number("ssm.group_count").unwrap_or(0), state]);
        let convolution = product(&[kernel.saturating_sub(1), inner.saturating_add(groups)]);
        convolution.saturating_add(product(&[inner, state]))
    };
    numbers.saturating_mul(STATE_ELEMENT_BYTES)
}

/// The number of a key, or entry `index` of its list of numbers per layer.
fn number_at(header: &Header, key: &str, index: u32) -> Option<u32> {
    let number = header.number(key).or_else(|| header.array(key)?.numbers.get(index as usize).copied());
    u32::try_from(number?).ok()
}
