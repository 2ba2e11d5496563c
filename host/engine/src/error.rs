//! What can go wrong, by who must act.

use std::path::PathBuf;

/// A model that cannot be loaded.
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
    /// The file is not a whole GGUF model.
    #[error("{path} is not a whole GGUF model: {reason}; download it again and compare its SHA-256", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The context does not fit into memory.
    #[error("no memory for {slots} sequences of {context} tokens: lower `context` or `slots`")]
    Context {
        /// Sequences asked for.
        slots: u32,
        /// Tokens a sequence.
        context: u32,
    },
    /// llama.cpp itself did not start.
    #[error("llama.cpp did not start: {0}")]
    Runtime(String),
}

/// A session that cannot be opened, or whose work failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The queue is full.
    #[error("{waiting} requests are already waiting for this model")]
    Overloaded {
        /// Requests in the queue.
        waiting: usize,
    },
    /// The prompt and the tokens asked for do not fit.
    #[error(
        "this model's context is {context} tokens; the prompt has {prompt} and {generate} more were asked for"
    )]
    TooLong {
        /// Tokens a sequence may have.
        context: u32,
        /// Tokens of the prompt.
        prompt: u32,
        /// Tokens to generate.
        generate: u32,
    },
    /// The prompt has no token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("token {0} is not in the vocabulary")]
    UnknownToken(u32),
    /// The session has finished.
    #[error("the session has finished")]
    Finished,
    /// No token satisfies the constraint, or it broke.
    #[error("the output's grammar allows no token here: {0}")]
    Constraint(String),
    /// llama.cpp refused a forward pass.
    #[error("llama.cpp failed: {0}")]
    Decode(String),
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}
