//! Checks that standby targets can take over from another target.

use tightwad_core::SharedBackend;

/// A target cannot take over from another target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FallbackError {
    /// The standby cannot resume a sequence.
    #[error("'{name}' cannot stand by for '{first}': it cannot continue after tokens that it did not choose")]
    Resume {
        /// The standby target.
        name: String,
        /// The first target.
        first: String,
    },
    /// The standby has another vocabulary.
    #[error(
        "'{name}' cannot stand by for '{first}': their vocabularies differ; use the same model, or one of the same family"
    )]
    Vocabulary {
        /// The standby target.
        name: String,
        /// The first target.
        first: String,
    },
}

impl From<FallbackError> for String {
    fn from(error: FallbackError) -> Self {
        error.to_string()
    }
}

/// Checks that each of `standbys` can take over from `first`.
///
/// # Errors
///
/// [`FallbackError`] of the first standby that cannot.
pub fn check_fallback(first: &SharedBackend, standbys: &[SharedBackend]) -> Result<(), FallbackError> {
    for standby in standbys {
        let names = || (standby.name().to_owned(), first.name().to_owned());
        if !standby.as_target().is_some_and(|target| target.resumes()) {
            let (name, first) = names();
            return Err(FallbackError::Resume { name, first });
        }
        if standby.vocabulary() != first.vocabulary() {
            let (name, first) = names();
            return Err(FallbackError::Vocabulary { name, first });
        }
    }
    Ok(())
}
