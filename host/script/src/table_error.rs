//! Defects of a table that a script gives to a function of `tw`.

/// A table cannot be used. The message is one sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The table has positions instead of names.
    #[error("{of} takes named fields, as in {{ {example} = ... }}")]
    Unnamed { of: &'static str, example: String },
    /// The function has no such field.
    #[error("unknown key '{key}' in {of}; {hint}")]
    UnknownKey { key: String, of: &'static str, hint: String },
    /// A field has a value of another kind.
    #[error("'{key}' in {of} must be {expected}, not {found}")]
    Kind { key: String, of: &'static str, expected: String, found: String },
    /// A field is missing.
    #[error("{of} needs '{key}': {expected}")]
    Missing { key: String, of: &'static str, expected: String },
    /// A value is not possible here.
    #[error("{0}")]
    Refused(String),
    /// Lua failed.
    #[error(transparent)]
    Lua(#[from] mlua::Error),
}

impl From<String> for TableError {
    fn from(message: String) -> Self {
        Self::Refused(message)
    }
}
