//! Errors of loading and of sessions.

use std::path::PathBuf;

/// An error of loading a model.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the model file {path}: {reason}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// The file is not a GGUF file of a supported version.
    #[error("{path} is not a GGUF model: {reason}", path = .path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What the file is instead.
        reason: String,
    },
    /// The file is shorter than its header says.
    #[error("{path} is incomplete: it has {bytes} {of}. Continue its download", path = .path.display(),
        of = .expected.map_or("bytes and ends within its header".to_owned(), |expected| format!("of {expected} bytes")))]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
        /// Its length according to its header; `None`: the header is incomplete.
        expected: Option<u64>,
    },
    /// The file is one of several parts, and cannot be used as it is.
    #[error("{path} belongs to a split model: {reason}", path = .path.display())]
    Split {
        /// The file.
        path: PathBuf,
        /// The reason and the remedy.
        reason: String,
    },
    /// The header of the file contradicts itself.
    #[error("{path} has a defect: {reason}. Compare its SHA-256 with its publisher's", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The defect.
        reason: String,
    },
    /// The file is complete, but it is not a model that generates text.
    #[error("{path} cannot generate text: {reason}", path = .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What the file is.
        reason: String,
    },
    /// llama.cpp refuses the file, or crashes on it.
    #[error("llama.cpp cannot load {path}: {reason}", path = .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// llama.cpp's reason, or its crash.
        reason: String,
    },
    /// The context does not fit into memory.
    #[error("not enough memory for {slots} sequences of {context} tokens. Lower `context` or `slots`")]
    OutOfMemory {
        /// The number of sequences.
        slots: u32,
        /// Context length of a sequence in tokens.
        context: u32,
    },
    /// llama.cpp failed to start.
    #[error("llama.cpp did not start: {0}")]
    Runtime(String),
}

impl LoadError {
    /// The reason without the file.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Refused { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }
}

/// An error of a session.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The queue is full.
    #[error("{waiting} requests are already waiting for this model")]
    Overloaded {
        /// Requests in the queue.
        waiting: usize,
    },
    /// Prompt and output do not fit the context.
    #[error(
        "this model's context is {context} tokens; the prompt has {prompt}, and the request asks for {generate} more"
    )]
    TooLong {
        /// Context length in tokens.
        context: u32,
        /// Prompt length in tokens.
        prompt: u32,
        /// Tokens to generate.
        generate: u32,
    },
    /// The prompt is empty.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("token {0} is not in the vocabulary")]
    UnknownToken(u32),
    /// A biased token is outside the vocabulary.
    #[error("'logit_bias' names token {token}, but this model has the tokens 0 to {}", .vocabulary_size - 1)]
    UnknownBias {
        /// The token.
        token: u32,
        /// The number of tokens in the vocabulary.
        vocabulary_size: u32,
    },
    /// The biases leave no token.
    #[error("'logit_bias' forbids every token that can follow. Forbid fewer tokens")]
    AllForbidden,
    /// The session has already finished.
    #[error("the session has finished")]
    Finished,
    /// No token satisfies the constraint, or the constraint failed.
    #[error("the constraint on the output allows no token: {0}")]
    Constraint(String),
    /// llama.cpp failed to compute a forward pass.
    #[error("llama.cpp failed: {0}")]
    Decode(String),
    /// The engine panicked repeatedly while it worked on this sequence.
    #[error("the engine panicked {panics} times at this request: {reason}")]
    Panicked {
        /// The number of panics.
        panics: u32,
        /// The message of the last panic.
        reason: String,
    },
    /// The engine cannot run now. It tries again by itself.
    #[error("the engine is restarting after a failure: {0}")]
    Failing(String),
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}
