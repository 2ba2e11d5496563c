//! Small models of many architectures for tests: real GGUF files of 14 to 50 MB with random weights and a real
//! tokenizer. They answer in milliseconds and show crashes, rollback, exactness and speed as well as trained ones.
//! Their text has no meaning.
//!
//! Tensor names and shapes follow `src/models/*.cpp` of llama.cpp, keys its `src/llama-arch.cpp`.

mod gguf;
mod kinds;
mod tensor;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use kinds::Kind;

use self::gguf::Source;

/// Makes models on demand and keeps them in a folder.
#[derive(Debug, Clone)]
pub struct Zoo {
    tokenizer: PathBuf,
    folder: PathBuf,
}

/// Raised when a model is made differently, so that no old file is used.
const REVISION: u32 = 2;

impl Zoo {
    /// Models with the tokenizer and the chat template of the GGUF file `tokenizer`, kept in `folder`.
    #[must_use]
    pub fn new(tokenizer: &Path, folder: &Path) -> Self {
        Self { tokenizer: tokenizer.to_owned(), folder: folder.to_owned() }
    }

    /// The file of a model. It is made where it is missing; several processes may ask at once.
    ///
    /// # Errors
    ///
    /// The file system's, and [`io::ErrorKind::InvalidData`] where the tokenizer's file is not a GGUF.
    pub fn model(&self, kind: Kind) -> io::Result<PathBuf> {
        let path = self.folder.join(format!("{}-{REVISION}.gguf", kind.name()));
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&self.folder)?;
        let source = Source::read(&self.tokenizer)?;
        // Threads and processes write files of their own; whichever is first has the name.
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let unfinished = path.with_extension(format!("{}.{writer}.part", std::process::id()));
        kinds::write(kind, &source, &unfinished)?;
        fs::rename(&unfinished, &path)?;
        Ok(path)
    }
}
