//! A model of this process as a backend.

pub(crate) mod heads;
pub(crate) mod llama;
pub(crate) mod prompt;
pub(crate) mod session;
pub(crate) mod vocabulary;

pub use llama::Llama;
pub use prompt::WeightsTokenizer;
pub use vocabulary::Vocabulary;
