//! The sizes of a model, from the header of its file.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::header::check_header;

/// Bytes of a number in the KV cache.
const CACHE_ELEMENT_BYTES: u64 = 2;

/// One repeating layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    /// Bytes of the layer's weights.
    pub weight_bytes: u64,
    /// Bytes of the layer's experts; 0 if the model is not a mixture of experts.
    pub expert_bytes: u64,
    /// Cache bytes per token.
    pub cache_bytes_per_token: u64,
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
}

impl ModelShape {
    /// Reads the header of the GGUF file at `path`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the file is not a GGUF model, or if its header lacks a required key.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        check_header(path)?;
        let file = GgufHeader::open(path)?;
        let architecture = file.text("general.architecture")?;
        let key = |name: &str| format!("{architecture}.{name}");
        let layer_count = file.number(&key("block_count"))?;
        let embedding_length = file.number(&key("embedding_length"))?;
        let heads = file.number_at(&key("attention.head_count"), 0).unwrap_or(0);
        // Recurrent layers have no KV cache. In hybrid models, only every `attention_interval`-th layer has
        // one.
        let attention_interval = file.number(&key("full_attention_interval")).unwrap_or(1).max(1);
        let recurrent = heads == 0 || ["mamba", "rwkv"].iter().any(|name| architecture.starts_with(name));
        let heads = heads.max(1);
        let key_length = file.number(&key("attention.key_length")).unwrap_or(embedding_length / heads);
        let value_length = file.number(&key("attention.value_length")).unwrap_or(key_length);
        let layer = |index: u32| {
            let attends = !recurrent && (index + 1).is_multiple_of(attention_interval);
            let kv_heads = file.number_at(&key("attention.head_count_kv"), index).unwrap_or(heads);
            let kv_heads = if attends { kv_heads } else { 0 };
            let cache_bytes_per_token =
                u64::from(kv_heads) * u64::from(key_length + value_length) * CACHE_ELEMENT_BYTES;
            LayerShape { weight_bytes: 0, expert_bytes: 0, cache_bytes_per_token }
        };
        let mut shape = Self {
            layers: (0..layer_count).map(layer).collect(),
            embedding_bytes: 0,
            output_bytes: 0,
            embedding_length,
            head_count: heads,
            feed_forward_length: file
                .number_at(&key("feed_forward_length"), 0)
                .unwrap_or(4 * embedding_length),
            vocabulary_size: file.array_length("tokenizer.ggml.tokens")?,
            trained_context: file.number(&key("context_length")).unwrap_or(0),
            architecture,
        };
        file.tensors().into_iter().for_each(|(name, bytes)| shape.add_tensor(&name, bytes));
        if shape.output_bytes < shape.embedding_bytes / 4 {
            shape.output_bytes += shape.embedding_bytes;
        }
        Ok(shape)
    }

    fn add_tensor(&mut self, name: &str, bytes: u64) {
        let numbered = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let layer = numbered.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest)));
        match layer.and_then(|(number, rest)| Some((self.layers.get_mut(number)?, rest))) {
            Some((layer, rest)) => {
                layer.weight_bytes += bytes;
                if rest.contains("_exps") {
                    layer.expert_bytes += bytes;
                }
            }
            None if name.starts_with("output") => self.output_bytes += bytes,
            None => self.embedding_bytes += bytes,
        }
    }

    /// Bytes of the complete model. A tied head counts once.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.weight_bytes).sum::<u64>()
            + self.embedding_bytes.max(self.output_bytes)
    }
}

/// An open GGUF header.
struct GgufHeader {
    path: PathBuf,
    gguf: NonNull<sys::gguf_context>,
}

impl Drop for GgufHeader {
    fn drop(&mut self) {
        // SAFETY: the context came from `gguf_init_from_file` and is freed once.
        unsafe { sys::gguf_free(self.gguf.as_ptr()) }
    }
}

impl GgufHeader {
    fn open(path: &Path) -> Result<Self, LoadError> {
        let malformed =
            || LoadError::Malformed { path: path.to_owned(), reason: "its header is unreadable".to_owned() };
        let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| malformed())?;
        let params = sys::gguf_init_params { no_alloc: true, ctx: std::ptr::null_mut() };
        // SAFETY: the name is a C string. The function returns null for files that are not GGUF.
        let gguf = unsafe { sys::gguf_init_from_file(name.as_ptr(), params) };
        Ok(Self { path: path.to_owned(), gguf: NonNull::new(gguf).ok_or_else(malformed)? })
    }

    fn missing(&self, key: &str) -> LoadError {
        let reason = format!("its header has no usable '{key}'");
        LoadError::Malformed { path: self.path.clone(), reason }
    }

    /// Id and type of a key.
    fn find(&self, key: &str) -> Option<(i64, sys::gguf_type)> {
        let name = CString::new(key).ok()?;
        // SAFETY: the context is live, and the context returned the id.
        unsafe {
            let id = sys::gguf_find_key(self.gguf.as_ptr(), name.as_ptr());
            (id >= 0).then(|| (id, sys::gguf_get_kv_type(self.gguf.as_ptr(), id)))
        }
    }

    fn text(&self, key: &str) -> Result<String, LoadError> {
        let entry = self.find(key).filter(|(_, kind)| *kind == sys::GGUF_TYPE_STRING);
        let (id, _) = entry.ok_or_else(|| self.missing(key))?;
        // SAFETY: the key's value is a string that lives as long as the context.
        let text = unsafe { CStr::from_ptr(sys::gguf_get_val_str(self.gguf.as_ptr(), id)) };
        Ok(text.to_string_lossy().into_owned())
    }

    fn number(&self, key: &str) -> Result<u32, LoadError> {
        let entry = self.find(key).filter(|(_, kind)| *kind == sys::GGUF_TYPE_UINT32);
        let (id, _) = entry.ok_or_else(|| self.missing(key))?;
        // SAFETY: the key's value is a 32-bit number.
        Ok(unsafe { sys::gguf_get_val_u32(self.gguf.as_ptr(), id) })
    }

    /// The number of a key, or entry `index` of its array of numbers per layer.
    fn number_at(&self, key: &str, index: u32) -> Option<u32> {
        let (id, kind) = self.find(key)?;
        if kind != sys::GGUF_TYPE_ARRAY {
            return self.number(key).ok();
        }
        // SAFETY: the array contains 32-bit numbers, and the index is within it.
        unsafe {
            let element = sys::gguf_get_arr_type(self.gguf.as_ptr(), id);
            let is_number = element == sys::GGUF_TYPE_UINT32 || element == sys::GGUF_TYPE_INT32;
            let within = (index as usize) < sys::gguf_get_arr_n(self.gguf.as_ptr(), id);
            let data = sys::gguf_get_arr_data(self.gguf.as_ptr(), id).cast::<u32>();
            (is_number && within).then(|| data.add(index as usize).read_unaligned())
        }
    }

    fn array_length(&self, key: &str) -> Result<u32, LoadError> {
        let entry = self.find(key).filter(|(_, kind)| *kind == sys::GGUF_TYPE_ARRAY);
        let (id, _) = entry.ok_or_else(|| self.missing(key))?;
        // SAFETY: the key's value is an array.
        let count = unsafe { sys::gguf_get_arr_n(self.gguf.as_ptr(), id) };
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Names and sizes in bytes of all tensors.
    fn tensors(&self) -> Vec<(String, u64)> {
        // SAFETY: the ids are those of the context's tensors, and the names live as long as the context.
        unsafe {
            let gguf = self.gguf.as_ptr();
            let tensor = |id| {
                let name = CStr::from_ptr(sys::gguf_get_tensor_name(gguf, id)).to_string_lossy();
                (name.into_owned(), sys::gguf_get_tensor_size(gguf, id) as u64)
            };
            (0..sys::gguf_get_n_tensors(gguf)).map(tensor).collect()
        }
    }
}
