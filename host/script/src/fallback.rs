//! Targets that stand by for another one.

use tightwad_core::SharedBackend;

/// A target cannot stand by for another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FallbackError {
    /// It cannot resume a sequence.
    #[error("'{name}' cannot stand by for '{first}': it cannot go on from its tokens")]
    Resume {
        /// The target that should stand by.
        name: String,
        /// The target that may be lost.
        first: String,
    },
    /// It has another vocabulary.
    #[error(
        "'{name}' cannot stand by for '{first}': its vocabulary is another one; use the same model, or one of the same family"
    )]
    Vocabulary {
        /// The target that should stand by.
        name: String,
        /// The target that may be lost.
        first: String,
    },
}

impl From<FallbackError> for String {
    fn from(error: FallbackError) -> Self {
        error.to_string()
    }
}

/// Refuses targets that cannot stand by for `first`, with the way out.
///
/// # Errors
///
/// [`FallbackError`] of the first target that cannot.
pub fn check_fallback(first: &SharedBackend, others: &[SharedBackend]) -> Result<(), FallbackError> {
    for other in others {
        let names = || (other.name().to_owned(), first.name().to_owned());
        if !other.as_target().is_some_and(|target| target.resumes()) {
            let (name, first) = names();
            return Err(FallbackError::Resume { name, first });
        }
        if other.vocabulary() != first.vocabulary() {
            let (name, first) = names();
            return Err(FallbackError::Vocabulary { name, first });
        }
    }
    Ok(())
}
