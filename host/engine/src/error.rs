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
    /// The file is not a complete GGUF model.
    #[error("{path} is not a complete GGUF model: {reason}. Download it again and compare its SHA-256", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The defect.
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
    /// The session has already finished.
    #[error("the session has finished")]
    Finished,
    /// No token satisfies the constraint, or the constraint failed.
    #[error("the constraint on the output allows no token: {0}")]
    Constraint(String),
    /// llama.cpp failed to compute a forward pass.
    #[error("llama.cpp failed: {0}")]
    Decode(String),
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}
