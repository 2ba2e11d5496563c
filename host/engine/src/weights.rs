//! A loaded model: its weights, its vocabulary and what is known about it.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_sys_2 as sys;
use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use sha2::{Digest, Sha256};
use tightwad_core::TokenId;

use crate::constraint::{Constraint, ConstraintError};
use crate::error::LoadError;
use crate::header::{check_header, unreadable};
use crate::llama::model::{self, parameters};
use crate::pool;
use crate::pool::config::PoolConfig;
use crate::specials::Specials;
use crate::text::{Reach, TextError, TextThread};

/// Weights and vocabulary; immutable.
pub struct Weights {
    pub(crate) model: LlamaModel,
    path: PathBuf,
    vocabulary: [u8; 32],
    /// Bytes of the longest token; `None` where the tokenizer drops text, so that bytes say nothing about tokens.
    longest_token: Option<usize>,
    reach: Reach,
    specials: OnceLock<Specials>,
    /// Its layers lie on other machines too.
    pooled: bool,
    digest: [u8; 32],
    grammars: OnceLock<Result<Arc<ParserFactory>, String>>,
}

impl Weights {
    /// Loads a GGUF file, with `gpu_layers` layers on a GPU where there is one.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when the file is missing, is no GGUF or is not whole.
    pub fn load(path: &Path, gpu_layers: u32) -> Result<Arc<Self>, LoadError> {
        let mut params = parameters();
        params.n_gpu_layers = i32::try_from(gpu_layers).unwrap_or(i32::MAX);
        Self::read(path, params)
    }

    /// Loads a GGUF file whose layers lie on the workers of `pool`; `progress` is told how much is
    /// loaded, from 0 to 1. The process ends when a worker is lost.
    ///
    /// # Errors
    ///
    /// As [`Weights::load`].
    pub fn load_pooled(
        path: &Path,
        pool: &PoolConfig,
        progress: impl FnMut(f32) + 'static,
    ) -> Result<Arc<Self>, LoadError> {
        check_header(path)?;
        Self::known(path, pool::load::load(path, pool, Box::new(progress))?, true)
    }

    /// Loads only the vocabulary and the chat template of a GGUF file.
    ///
    /// # Errors
    ///
    /// As [`Weights::load`].
    pub fn vocabulary_of(path: &Path) -> Result<Arc<Self>, LoadError> {
        let mut params = parameters();
        params.vocab_only = true;
        Self::read(path, params)
    }

    fn read(path: &Path, params: sys::llama_model_params) -> Result<Arc<Self>, LoadError> {
        check_header(path)?;
        // SAFETY: nothing was added to the parameters that points anywhere.
        let model = unsafe { model::load(path, params)? };
        Self::known(path, model, false)
    }

    fn known(path: &Path, model: LlamaModel, pooled: bool) -> Result<Arc<Self>, LoadError> {
        let (vocabulary, longest) = vocabulary_digest(&model);
        let digest = file_digest(path).map_err(|error| unreadable(path, &error))?;
        let key = |key: &str| model.meta_val_str(key).unwrap_or_default();
        let (tokenizer, pre) = (key("tokenizer.ggml.model"), key("tokenizer.ggml.pre"));
        // Those two normalize: they drop white space and accents.
        let longest_token = Some(longest).filter(|_| !matches!(tokenizer.as_str(), "bert" | "t5"));
        let reach = Reach::of(&tokenizer, &pre);
        Ok(Arc::new(Self {
            model,
            path: path.to_owned(),
            vocabulary,
            longest_token,
            reach,
            specials: OnceLock::new(),
            pooled,
            digest,
            grammars: OnceLock::new(),
        }))
    }

    /// The file the model came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 over all tokens: two models with equal digests may exchange token ids.
    #[must_use]
    pub fn vocabulary(&self) -> [u8; 32] {
        self.vocabulary
    }

    /// What the model is: `llama 135M Q4_1`.
    #[must_use]
    pub fn description(&self) -> String {
        let architecture = self.model.meta_val_str("general.architecture").unwrap_or_default();
        format!("{architecture} {} {}", size_label(self.model.n_params()), self.quantization())
    }

    /// How the weights are stored, as the GGUF says it.
    fn quantization(&self) -> &'static str {
        let kind = self.model.meta_val_str("general.file_type").ok().and_then(|kind| kind.parse().ok());
        let named = kind.and_then(|kind: usize| FILE_TYPES.get(kind).copied());
        named.filter(|name| !name.is_empty()).unwrap_or("mixed")
    }

    /// Bytes of the weights.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.model.size()
    }

    /// SHA-256 over samples of the file: files with equal digests generate the same.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Number of tokens in the vocabulary.
    #[must_use]
    pub fn vocabulary_size(&self) -> u32 {
        self.model.n_vocab().unsigned_abs()
    }

    /// Tokens the model was trained to attend to.
    #[must_use]
    pub fn trained_context(&self) -> u32 {
        self.model.n_ctx_train()
    }

    /// Bytes of the weights and of full caches that this machine holds for sequences like these; 0 for a pool, where
    /// machines lend what they have.
    pub(crate) fn memory(&self, cache_bytes: u64) -> (u64, u64) {
        if self.pooled { (0, 0) } else { (self.size(), cache_bytes) }
    }

    /// True for models with recurrent layers (Mamba, LFM2, Qwen3.5, ...). Their state cannot be cut: what is
    /// rejected must be evaluated again from the beginning.
    #[must_use]
    pub fn has_recurrent_state(&self) -> bool {
        self.model.is_recurrent() || self.model.is_hybrid()
    }

    /// Splits `text` into tokens. Special tokens written out in it are recognized, and the
    /// model's own beginning token is added, where `special` says so.
    ///
    /// # Errors
    ///
    /// [`TextError`] for a text that cannot fit `context` tokens, or that the tokenizer's stack cannot hold.
    pub fn tokenize(
        &self,
        _: &TextThread,
        text: &str,
        special: bool,
        context: u32,
    ) -> Result<Vec<TokenId>, TextError> {
        self.check_text(text, context)?;
        Ok(self.split(text, special, special))
    }

    /// Splits a rendered chat template, which writes its special tokens itself.
    ///
    /// # Errors
    ///
    /// As [`Weights::tokenize`].
    pub fn tokenize_rendered(
        &self,
        _: &TextThread,
        text: &str,
        context: u32,
    ) -> Result<Vec<TokenId>, TextError> {
        self.check_text(text, context)?;
        let bos = self.special(self.model.vocab().bos());
        let adds = self.model.vocab().should_add_bos() && (bos.is_empty() || !text.starts_with(&bos));
        Ok(self.split(text, adds, true))
    }

    /// Most bytes of a text that can fit `context` tokens.
    #[must_use]
    pub fn most_bytes(&self, context: u32) -> usize {
        self.longest_token.map_or(usize::MAX, |longest| longest.saturating_mul(context as usize))
    }

    /// Refuses what llama.cpp must not see.
    fn check_text(&self, text: &str, context: u32) -> Result<(), TextError> {
        if text.len() > self.most_bytes(context) {
            return Err(self.too_long(text.len(), context));
        }
        self.reach.check(text)?;
        self.specials.get_or_init(|| Specials::of(&self.model)).check(text)
    }

    /// The refusal of a text of `bytes` bytes.
    #[must_use]
    pub fn too_long(&self, bytes: usize, context: u32) -> TextError {
        TextError::TooLong { tokens: bytes.div_ceil(self.longest_token.unwrap_or(1).max(1)), context }
    }

    fn split(&self, text: &str, begin: bool, special: bool) -> Vec<TokenId> {
        let tokens = self.model.vocab().tokenize(text.as_bytes(), begin, special);
        tokens.into_iter().map(|token| token.0.unsigned_abs()).collect()
    }

    /// The bytes of `token`; empty for special tokens, and for numbers that are no tokens.
    #[must_use]
    pub fn bytes(&self, token: TokenId) -> Vec<u8> {
        if token >= self.vocabulary_size() {
            return Vec::new();
        }
        self.model.vocab().token_to_piece(llama(token), false, None)
    }

    /// True for tokens that end a turn.
    #[must_use]
    pub fn ends(&self, token: TokenId) -> bool {
        self.model.vocab().is_eog(llama(token))
    }

    /// The text of the beginning and end tokens, for chat templates.
    pub(crate) fn edges(&self) -> (String, String) {
        let vocab = self.model.vocab();
        (self.special(vocab.bos()), self.special(vocab.eos()))
    }

    /// Compiles a constraint on the output.
    ///
    /// # Errors
    ///
    /// [`ConstraintError`] says what the grammar's compiler did not like.
    pub fn constraint(&self, grammar: TopLevelGrammar) -> Result<Constraint, ConstraintError> {
        let factory = self.grammars.get_or_init(|| {
            let tokens = LlamaSampler::llguidance_tok_env(&self.model);
            ParserFactory::new_simple(&tokens).map(Arc::new).map_err(|error| error.to_string())
        });
        let factory = factory.as_ref().map_err(|error| ConstraintError(error.clone()))?;
        Constraint::new(factory, grammar)
    }

    fn special(&self, token: LlamaToken) -> String {
        if token.0 < 0 {
            return String::new();
        }
        String::from_utf8_lossy(&self.model.vocab().token_to_piece(token, true, None)).into_owned()
    }
}

pub(crate) fn llama(token: TokenId) -> LlamaToken {
    LlamaToken(token.cast_signed())
}

/// SHA-256 over all tokens, and the bytes of the longest one.
fn vocabulary_digest(model: &LlamaModel) -> ([u8; 32], usize) {
    let mut hash = Sha256::new();
    let mut longest = 0;
    for (_, bytes) in model.tokens(true) {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
        longest = longest.max(bytes.len());
    }
    (hash.finalize().into(), longest)
}

/// Bytes of one sample of the file, and how many there are: reading all of a large file would take
/// longer than loading it.
const SAMPLE: u64 = 64 << 10;
const SAMPLES: u64 = 64;

/// Over the length, the first samples' worth of bytes (all metadata of most models), and samples
/// spread evenly over the rest.
fn file_digest(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    let mut sample = Vec::new();
    let head = SAMPLE * SAMPLES;
    let rest = length.saturating_sub(head);
    let spread = (0..SAMPLES).map(|index| (head + rest / SAMPLES * index, SAMPLE));
    for (start, bytes) in std::iter::once((0, head)).chain(spread) {
        sample.clear();
        file.seek(SeekFrom::Start(start))?;
        (&mut file).take(bytes).read_to_end(&mut sample)?;
        hash.update(&sample);
    }
    Ok(hash.finalize().into())
}

/// `llama_ftype` of llama.h, by number; empty: not used any more.
const FILE_TYPES: [&str; 39] = [
    "F32", "F16", "Q4_0", "Q4_1", "", "", "", "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L",
    "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS",
    "IQ1_S", "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16", "", "", "", "TQ1_0",
    "TQ2_0", "MXFP4",
];

/// A number of parameters as model names write it.
fn size_label(parameters: u64) -> String {
    match parameters as f64 {
        many @ 1e9.. => format!("{:.1}B", many / 1e9),
        few => format!("{:.0}M", few / 1e6),
    }
}
