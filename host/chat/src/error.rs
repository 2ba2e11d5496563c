//! Errors of templates.

/// An error of a chat template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The template does not compile.
    #[error("{0}")]
    Broken(String),
    /// The template rejects the conversation.
    #[error("{0}")]
    Refused(String),
    /// The template does not end in time.
    #[error("the template does not end within {seconds} s of computation")]
    TooSlow {
        /// The limit in seconds of processor time.
        seconds: u64,
    },
    /// The helper process did not answer: the machine has no processor time for it.
    #[error("the template's helper process did not answer within {seconds} s")]
    NoAnswer {
        /// The limit in seconds.
        seconds: u64,
    },
    /// The prompt is too long.
    #[error("the prompt has {bytes} bytes")]
    TooLong {
        /// The length of the prompt in bytes.
        bytes: usize,
    },
    /// The helper process ended.
    #[error("the template's helper process ended: {0}")]
    Crashed(String),
    /// The helper process did not start.
    #[error("the template's helper process does not start: {0}")]
    NotStarted(String),
}
