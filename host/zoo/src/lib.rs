//! Small models of many architectures for tests: GGUF files of 5 to 50 MB with random weights and a real tokenizer. Most
//! of them have the first tokens of its vocabulary only.
//!
//! The models answer in milliseconds. They show crashes, rollback, exactness and speed as well as trained models. Their
//! text has no meaning. The tokens of [`Kind::Constructed`] are known, and so is the acceptance of its drafts.
//!
//! Tensor names and shapes follow `src/models/*.cpp` of llama.cpp. Keys follow its `src/llama-arch.cpp`.

mod architectures;
mod gguf;
mod kind;
mod tensor;
mod token_cycle;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use gguf::GgufFile;
pub use kind::Kind;
pub use token_cycle::TokenCycle;

use self::gguf::TokenizerSource;

/// A folder of models that are created on demand.
#[derive(Debug, Clone)]
pub struct Zoo {
    tokenizer: PathBuf,
    folder: PathBuf,
}

/// The revision of the models, which is part of the file names. Each change of a model needs a new revision.
const REVISION: u32 = 4;

/// The number of tokens of a small vocabulary. The output matrix then takes a small part of a pass.
const SMALL_VOCABULARY_TOKENS: u64 = 4096;
/// The number of unused tokens in a padded vocabulary.
const PADDING_TOKENS: u64 = 128;

impl Zoo {
    /// A folder of models with the tokenizer and the chat template of the GGUF file `tokenizer`.
    #[must_use]
    pub fn new(tokenizer: &Path, folder: &Path) -> Self {
        Self { tokenizer: tokenizer.to_owned(), folder: folder.to_owned() }
    }

    /// Returns the path of a model's file. Creates a missing file. Several processes can create a file at the same time.
    ///
    /// # Errors
    ///
    /// Returns the file system's error, or [`io::ErrorKind::InvalidData`] if the tokenizer's file is not a GGUF file.
    pub fn model(&self, kind: Kind) -> io::Result<PathBuf> {
        let path = self.folder.join(format!("{}-{REVISION}.gguf", kind.name()));
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&self.folder)?;
        // Each thread and process writes its own file. Renaming then replaces equal files.
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let write = WRITES.fetch_add(1, Ordering::Relaxed);
        let partial = path.with_extension(format!("{}.{write}.part", std::process::id()));
        self.content(kind)?.write(&partial)?;
        fs::rename(&partial, &path)?;
        Ok(path)
    }

    /// Returns the content of a model, for tests that change it.
    ///
    /// # Errors
    ///
    /// As [`Self::model`].
    pub fn content(&self, kind: Kind) -> io::Result<GgufFile> {
        let mut source = TokenizerSource::read(&self.tokenizer)?;
        match kind {
            Kind::PaddedVocabulary => source.pad(PADDING_TOKENS),
            kind if kind.has_small_vocabulary() => source.truncate(SMALL_VOCABULARY_TOKENS)?,
            _ => {}
        }
        Ok(architectures::build(kind, &source))
    }
}
