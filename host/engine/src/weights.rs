//! A loaded model: its weights, its vocabulary and its metadata.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use tightwad_core::TokenId;

use crate::constraint::{Constraint, ConstraintError};
use crate::error::LoadError;
use crate::file::content::{check_model, check_vocabulary};
use crate::file::digest::weights_digest;
use crate::file::level::Level;
use crate::file::model_file::ModelFile;
use crate::file::trial::ensure_passed;
use crate::llama::model::{self, default_params};
use crate::pool;
use crate::pool::config::PoolConfig;
use crate::pool::shape::ModelShape;
use crate::protected_text::ProtectedText;
use crate::special_tokens::SpecialTokens;
use crate::text::{MatchReach, TextError, TextThread};
use crate::vocabulary_digest::hash_vocabulary;

/// Weights and vocabulary of a model; immutable.
pub struct Weights {
    pub(crate) model: LlamaModel,
    /// The sizes of the layers; `None` if the header lacks a key that they need.
    shape: Option<ModelShape>,
    vocabulary_digest: [u8; 32],
    /// Bytes of the longest token. `None` if the tokenizer drops text: then bytes are not a measure of
    /// tokens.
    max_token_bytes: Option<usize>,
    match_reach: MatchReach,
    special_tokens: OnceLock<SpecialTokens>,
    /// True if some layers lie on other machines.
    pooled: bool,
    file_digest: [u8; 32],
    grammar_factory: OnceLock<Result<Arc<ParserFactory>, String>>,
}

impl Weights {
    /// Loads a GGUF file, with `gpu_layers` layers on a GPU if there is one.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the file is missing or incomplete, or if it is not a model that generates text.
    pub fn load(path: &Path, gpu_layers: u32) -> Result<Arc<Self>, LoadError> {
        let mut params = default_params();
        params.n_gpu_layers = i32::try_from(gpu_layers).unwrap_or(i32::MAX);
        let file = ModelFile::open(path)?;
        check_model(&file)?;
        ensure_passed(&file, Level::Pass, params.n_gpu_layers)?;
        // SAFETY: the parameters contain no pointers of the caller.
        let model = unsafe { model::load(path, params)? };
        Self::from_model(&file, model, false)
    }

    /// Loads a GGUF file whose layers lie on the workers of `pool`. `progress` receives the loaded share,
    /// from 0 to 1. llama.cpp ends the process if a worker is lost.
    ///
    /// # Errors
    ///
    /// As [`Weights::load`].
    pub fn load_pooled(
        path: &Path,
        pool: &PoolConfig,
        progress: impl FnMut(f32) + 'static,
    ) -> Result<Arc<Self>, LoadError> {
        let file = ModelFile::open(path)?;
        check_model(&file)?;
        ensure_passed(&file, Level::Structure, 0)?;
        Self::from_model(&file, pool::load::load(path, pool, Box::new(progress))?, true)
    }

    /// Loads only the vocabulary and the chat template of a GGUF file.
    ///
    /// # Errors
    ///
    /// As [`Weights::load`].
    pub fn load_vocabulary(path: &Path) -> Result<Arc<Self>, LoadError> {
        let mut params = default_params();
        params.vocab_only = true;
        let file = ModelFile::open(path)?;
        check_vocabulary(&file)?;
        ensure_passed(&file, Level::Vocabulary, 0)?;
        // SAFETY: the parameters contain no pointers of the caller.
        let model = unsafe { model::load(path, params)? };
        Self::from_model(&file, model, false)
    }

    fn from_model(file: &ModelFile, model: LlamaModel, pooled: bool) -> Result<Arc<Self>, LoadError> {
        let (vocabulary_digest, max_token_bytes) = hash_vocabulary(&model);
        let file_digest = weights_digest(file)?;
        let key = |key: &str| model.meta_val_str(key).unwrap_or_default();
        let (tokenizer, pre) = (key("tokenizer.ggml.model"), key("tokenizer.ggml.pre"));
        // These two tokenizers normalize text: they drop white space and accents.
        let max_token_bytes = Some(max_token_bytes).filter(|_| !matches!(tokenizer.as_str(), "bert" | "t5"));
        let match_reach = MatchReach::for_tokenizer(&tokenizer, &pre);
        Ok(Arc::new(Self {
            model,
            shape: ModelShape::of(file).ok(),
            vocabulary_digest,
            max_token_bytes,
            match_reach,
            special_tokens: OnceLock::new(),
            pooled,
            file_digest,
            grammar_factory: OnceLock::new(),
        }))
    }

    /// The sizes of the layers; `None` if the file does not state them.
    pub(crate) fn shape(&self) -> Option<&ModelShape> {
        self.shape.as_ref()
    }

    /// SHA-256 over all tokens. Models with equal digests can exchange token ids.
    #[must_use]
    pub fn vocabulary_digest(&self) -> [u8; 32] {
        self.vocabulary_digest
    }

    /// Architecture, size and quantization, such as `llama 135M Q4_1`.
    #[must_use]
    pub fn description(&self) -> String {
        let architecture = self.model.meta_val_str("general.architecture").unwrap_or_default();
        format!("{architecture} {} {}", size_label(self.model.n_params()), self.quantization())
    }

    /// The quantization type, as the GGUF file states it.
    fn quantization(&self) -> &'static str {
        let kind = self.model.meta_val_str("general.file_type").ok().and_then(|kind| kind.parse().ok());
        let named = kind.and_then(|kind: usize| FILE_TYPES.get(kind).copied());
        named.filter(|name| !name.is_empty()).unwrap_or("mixed")
    }

    /// Bytes of the weights.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.model.size()
    }

    /// SHA-256 over all metadata and tensor headers, and over samples of each tensor. Models with different
    /// digests are different files. Equal digests mean equal weights, unless somebody changed only values that
    /// no sample covers.
    #[must_use]
    pub fn file_digest(&self) -> [u8; 32] {
        self.file_digest
    }

    /// Number of tokens in the vocabulary.
    #[must_use]
    pub fn vocabulary_size(&self) -> u32 {
        self.model.n_vocab().unsigned_abs()
    }

    /// The trained context length in tokens.
    #[must_use]
    pub fn trained_context(&self) -> u32 {
        self.model.n_ctx_train()
    }

    /// Bytes of the weights and of full caches on this machine; 0 for a pool, because its workers lend the
    /// memory.
    pub(crate) fn local_memory(&self, cache_bytes: u64) -> (u64, u64) {
        if self.pooled { (0, 0) } else { (self.size_bytes(), cache_bytes) }
    }

    /// True if some layers lie on other machines.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// True for models with recurrent layers (Mamba, LFM2, Qwen3.5, ...). Their state cannot be cut at any token.
    #[must_use]
    pub fn has_recurrent_state(&self) -> bool {
        self.model.is_recurrent() || self.model.is_hybrid()
    }

    /// The number of draft heads (MTP layers) in the model's file.
    #[must_use]
    pub fn head_count(&self) -> u32 {
        // SAFETY: by its `repr`, `LlamaModel` is a transparent wrapper of the model's pointer, which is live.
        let heads = unsafe {
            let model = *std::ptr::from_ref(&self.model).cast::<*const llama_cpp_sys_2::llama_model>();
            llama_cpp_sys_2::llama_model_n_layer_nextn(model)
        };
        u32::try_from(heads).unwrap_or(0)
    }

    /// Tokenizes `text`. With `special`, it recognizes written-out special tokens and adds the model's
    /// beginning token.
    ///
    /// # Errors
    ///
    /// [`TextError`] if the text does not fit `context` tokens, or if the tokenizer's stack cannot hold it.
    pub fn tokenize(
        &self,
        _: &TextThread,
        text: &str,
        special: bool,
        context: u32,
    ) -> Result<Vec<TokenId>, TextError> {
        self.check_text(text, context)?;
        Ok(self.tokenize_checked(text, special, special))
    }

    /// Tokenizes a rendered chat template. Mentions of special tokens are text. The template can already contain the
    /// beginning token.
    ///
    /// # Errors
    ///
    /// As [`Weights::tokenize`].
    pub(crate) fn tokenize_rendered(
        &self,
        _: &TextThread,
        rendered: &ProtectedText,
        context: u32,
    ) -> Result<Vec<TokenId>, TextError> {
        let text = rendered.text.as_str();
        self.check_text(text, context)?;
        let bos = self.special_token_text(self.model.vocab().bos());
        let is_mention = rendered.cuts.first().is_some_and(|cut| *cut < bos.len());
        let has_bos = !bos.is_empty() && text.starts_with(&bos) && !is_mention;
        let add_bos = self.model.vocab().should_add_bos() && !has_bos;
        let (mut tokens, mut done) = (Vec::new(), 0);
        for cut in rendered.cuts.iter().copied().chain([text.len()]) {
            tokens.extend(self.tokenize_part(text, done..cut, add_bos));
            done = cut;
        }
        Ok(tokens)
    }

    /// Tokenizes a part of `text`. Some tokenizers put a blank before each text that they get. Here they do so at the
    /// start of `text` only, as for text without parts.
    fn tokenize_part(&self, text: &str, part: Range<usize>, add_bos: bool) -> Vec<TokenId> {
        let (is_first, part) = (part.start == 0, &text[part]);
        if is_first {
            return self.tokenize_checked(part, add_bos, true);
        }
        let mut tokens = self.tokenize_checked(&format!("\n{part}"), false, true);
        for end in 1..tokens.len() {
            let start: Vec<u8> = tokens[..end].iter().flat_map(|token| self.token_bytes(*token)).collect();
            match start.as_slice() {
                b"" | b" " => {}
                b"\n" | b" \n" => return tokens.split_off(end),
                _ => break,
            }
        }
        // The line break has become a part of another token.
        self.tokenize_checked(part, false, true)
    }

    /// The maximum number of bytes of a text that fits `context` tokens.
    #[must_use]
    pub fn max_text_bytes(&self, context: u32) -> usize {
        self.max_token_bytes.map_or(usize::MAX, |max_bytes| max_bytes.saturating_mul(context as usize))
    }

    /// Rejects text that llama.cpp cannot process safely.
    fn check_text(&self, text: &str, context: u32) -> Result<(), TextError> {
        if text.len() > self.max_text_bytes(context) {
            return Err(self.too_long_error(text.len(), context));
        }
        self.match_reach.check(text)?;
        self.special_tokens().check(text)
    }

    /// The model's special tokens.
    pub(crate) fn special_tokens(&self) -> &SpecialTokens {
        self.special_tokens.get_or_init(|| SpecialTokens::for_model(&self.model))
    }

    /// The error for a text of `bytes` bytes.
    #[must_use]
    pub fn too_long_error(&self, bytes: usize, context: u32) -> TextError {
        TextError::TooLong { tokens: bytes.div_ceil(self.max_token_bytes.unwrap_or(1).max(1)), context }
    }

    fn tokenize_checked(&self, text: &str, add_bos: bool, parse_special: bool) -> Vec<TokenId> {
        let tokens = self.model.vocab().tokenize(text.as_bytes(), add_bos, parse_special);
        tokens.into_iter().map(|token| token.0.unsigned_abs()).collect()
    }

    /// The bytes of `token`; empty for special tokens and for ids outside the vocabulary.
    #[must_use]
    pub fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        if token >= self.vocabulary_size() {
            return Vec::new();
        }
        self.model.vocab().token_to_piece(llama_token(token), false, None)
    }

    /// True if `token` ends a turn.
    #[must_use]
    pub fn ends_turn(&self, token: TokenId) -> bool {
        self.model.vocab().is_eog(llama_token(token))
    }

    /// The texts of the beginning and end tokens, for chat templates.
    pub(crate) fn bos_eos_text(&self) -> (String, String) {
        let vocab = self.model.vocab();
        (self.special_token_text(vocab.bos()), self.special_token_text(vocab.eos()))
    }

    /// Compiles a constraint on the output.
    ///
    /// # Errors
    ///
    /// [`ConstraintError`] if the grammar does not compile.
    pub fn constraint(&self, grammar: TopLevelGrammar) -> Result<Constraint, ConstraintError> {
        let factory = self.grammar_factory.get_or_init(|| {
            let tokens = LlamaSampler::llguidance_tok_env(&self.model);
            ParserFactory::new_simple(&tokens).map(Arc::new).map_err(|error| error.to_string())
        });
        let factory = factory.as_ref().map_err(|error| ConstraintError(error.clone()))?;
        Constraint::new(factory, grammar)
    }

    fn special_token_text(&self, token: LlamaToken) -> String {
        if token.0 < 0 {
            return String::new();
        }
        String::from_utf8_lossy(&self.model.vocab().token_to_piece(token, true, None)).into_owned()
    }
}

pub(crate) fn llama_token(token: TokenId) -> LlamaToken {
    LlamaToken(token.cast_signed())
}

/// The names of `llama_ftype` in `llama.h`, by number; empty for unused numbers.
const FILE_TYPES: [&str; 39] = [
    "F32", "F16", "Q4_0", "Q4_1", "", "", "", "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L",
    "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS",
    "IQ1_S", "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16", "", "", "", "TQ1_0",
    "TQ2_0", "MXFP4",
];

/// A number of parameters in the style of model names.
fn size_label(parameters: u64) -> String {
    match parameters as f64 {
        many @ 1e9.. => format!("{:.1}B", many / 1e9),
        few => format!("{:.0}M", few / 1e6),
    }
}
