//! What a model needs, read from its file without loading it.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::header::check_header;

/// Bytes of an element of the KV cache.
const CACHE_ELEMENT: u64 = 2;

/// One repeating layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    /// Bytes of its weights.
    pub weights: u64,
    /// Bytes of the experts among them; 0: it is no mixture of experts.
    pub experts: u64,
    /// Bytes that a token takes in its cache.
    pub cache: u64,
}

/// The sizes of a model that matter for placing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// llama.cpp's name of the architecture.
    pub architecture: String,
    /// The repeating layers, in order.
    pub layers: Vec<LayerShape>,
    /// Bytes of the embeddings.
    pub input: u64,
    /// Bytes of the output head, which are those of the embeddings where it has none of its own.
    pub output: u64,
    /// Numbers between two layers, a token.
    pub embedding: u32,
    /// Attention heads.
    pub heads: u32,
    /// Inner numbers of the feed-forward part, a token.
    pub feed_forward: u32,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// Tokens the model was trained to attend to.
    pub context: u32,
}

impl ModelShape {
    /// Reads the header of the GGUF at `path`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when it is no GGUF model, or its header lacks what every model has.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        check_header(path)?;
        let file = Header::open(path)?;
        let architecture = file.text("general.architecture")?;
        let key = |name: &str| format!("{architecture}.{name}");
        let count = file.number(&key("block_count"))?;
        let embedding = file.number(&key("embedding_length"))?;
        let heads = file.first(&key("attention.head_count"), 0).unwrap_or(0);
        // Layers with a recurrent state have no cache: all of them, or all but each of this many.
        let attends_each = file.number(&key("full_attention_interval")).unwrap_or(1).max(1);
        let recurrent = heads == 0 || ["mamba", "rwkv"].iter().any(|name| architecture.starts_with(name));
        let heads = heads.max(1);
        let length = file.number(&key("attention.key_length")).unwrap_or(embedding / heads);
        let value = file.number(&key("attention.value_length")).unwrap_or(length);
        let layer = |index: u32| {
            let attends = !recurrent && (index + 1).is_multiple_of(attends_each);
            let shared = file.first(&key("attention.head_count_kv"), index).unwrap_or(heads);
            let shared = if attends { shared } else { 0 };
            let cache = u64::from(shared) * u64::from(length + value) * CACHE_ELEMENT;
            LayerShape { weights: 0, experts: 0, cache }
        };
        let mut shape = Self {
            layers: (0..count).map(layer).collect(),
            input: 0,
            output: 0,
            embedding,
            heads,
            feed_forward: file.first(&key("feed_forward_length"), 0).unwrap_or(4 * embedding),
            vocabulary: file.length("tokenizer.ggml.tokens")?,
            context: file.number(&key("context_length")).unwrap_or(0),
            architecture,
        };
        file.tensors().into_iter().for_each(|(name, bytes)| shape.add(&name, bytes));
        if shape.output < shape.input / 4 {
            shape.output += shape.input;
        }
        Ok(shape)
    }

    fn add(&mut self, name: &str, bytes: u64) {
        let numbered = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let layer = numbered.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest)));
        match layer.and_then(|(number, rest)| Some((self.layers.get_mut(number)?, rest))) {
            Some((layer, rest)) => {
                layer.weights += bytes;
                if rest.contains("_exps") {
                    layer.experts += bytes;
                }
            }
            None if name.starts_with("output") => self.output += bytes,
            None => self.input += bytes,
        }
    }

    /// Bytes of the whole model, a tied head counted once.
    #[must_use]
    pub fn weights(&self) -> u64 {
        self.layers.iter().map(|layer| layer.weights).sum::<u64>() + self.input.max(self.output)
    }
}

/// An open GGUF header.
struct Header {
    path: PathBuf,
    gguf: NonNull<sys::gguf_context>,
}

impl Drop for Header {
    fn drop(&mut self) {
        // SAFETY: it came from `gguf_init_from_file` and is freed once.
        unsafe { sys::gguf_free(self.gguf.as_ptr()) }
    }
}

impl Header {
    fn open(path: &Path) -> Result<Self, LoadError> {
        let malformed =
            || LoadError::Malformed { path: path.to_owned(), reason: "its header cannot be read".to_owned() };
        let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| malformed())?;
        let params = sys::gguf_init_params { no_alloc: true, ctx: std::ptr::null_mut() };
        // SAFETY: the name is a C string; null comes back for files that are none.
        let gguf = unsafe { sys::gguf_init_from_file(name.as_ptr(), params) };
        Ok(Self { path: path.to_owned(), gguf: NonNull::new(gguf).ok_or_else(malformed)? })
    }

    fn missing(&self, key: &str) -> LoadError {
        let reason = format!("its header has no usable '{key}'");
        LoadError::Malformed { path: self.path.clone(), reason }
    }

    /// Number and kind of a key.
    fn find(&self, key: &str) -> Option<(i64, sys::gguf_type)> {
        let name = CString::new(key).ok()?;
        // SAFETY: the context is live, and the id is one that it gave.
        unsafe {
            let id = sys::gguf_find_key(self.gguf.as_ptr(), name.as_ptr());
            (id >= 0).then(|| (id, sys::gguf_get_kv_type(self.gguf.as_ptr(), id)))
        }
    }

    fn text(&self, key: &str) -> Result<String, LoadError> {
        let found = self.find(key).filter(|(_, kind)| *kind == sys::GGUF_TYPE_STRING);
        let (id, _) = found.ok_or_else(|| self.missing(key))?;
        // SAFETY: the key is a text, which lives as long as the context.
        let text = unsafe { CStr::from_ptr(sys::gguf_get_val_str(self.gguf.as_ptr(), id)) };
        Ok(text.to_string_lossy().into_owned())
    }

    fn number(&self, key: &str) -> Result<u32, LoadError> {
        let found = self.find(key).filter(|(_, kind)| *kind == sys::GGUF_TYPE_UINT32);
        let (id, _) = found.ok_or_else(|| self.missing(key))?;
        // SAFETY: the key is such a number.
        Ok(unsafe { sys::gguf_get_val_u32(self.gguf.as_ptr(), id) })
    }

    /// A number, or entry `index` of an array of them, one a layer.
    fn first(&self, key: &str, index: u32) -> Option<u32> {
        let (id, kind) = self.find(key)?;
        if kind != sys::GGUF_TYPE_ARRAY {
            return self.number(key).ok();
        }
        // SAFETY: the array has numbers of 32 bits, and the index is within it.
        unsafe {
            let element = sys::gguf_get_arr_type(self.gguf.as_ptr(), id);
            let whole = element == sys::GGUF_TYPE_UINT32 || element == sys::GGUF_TYPE_INT32;
            let within = (index as usize) < sys::gguf_get_arr_n(self.gguf.as_ptr(), id);
            let data = sys::gguf_get_arr_data(self.gguf.as_ptr(), id).cast::<u32>();
            (whole && within).then(|| data.add(index as usize).read_unaligned())
        }
    }

    fn length(&self, key: &str) -> Result<u32, LoadError> {
        let found = self.find(key).filter(|(_, kind)| *kind == sys::GGUF_TYPE_ARRAY);
        let (id, _) = found.ok_or_else(|| self.missing(key))?;
        // SAFETY: the key is an array.
        let count = unsafe { sys::gguf_get_arr_n(self.gguf.as_ptr(), id) };
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Names and bytes.
    fn tensors(&self) -> Vec<(String, u64)> {
        // SAFETY: the numbers are those of the context's own tensors, and the names live as long as it.
        unsafe {
            let gguf = self.gguf.as_ptr();
            let one = |id| {
                let name = CStr::from_ptr(sys::gguf_get_tensor_name(gguf, id)).to_string_lossy();
                (name.into_owned(), sys::gguf_get_tensor_size(gguf, id) as u64)
            };
            (0..sys::gguf_get_n_tensors(gguf)).map(one).collect()
        }
    }
}
