//! Errors about the tables that scripts pass.

/// A table has a wrong key or value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The table has positions instead of names.
    #[error("{table_name} takes named fields, as in {{ {example} = ... }}")]
    Unnamed { table_name: &'static str, example: String },
    /// The schema does not have this key.
    #[error("unknown key '{key}' in {table_name}; {hint}")]
    UnknownKey { key: String, table_name: &'static str, hint: String },
    /// A value has the wrong type.
    #[error("'{key}' in {table_name} must be {expected}, not {found}")]
    WrongType { key: String, table_name: &'static str, expected: String, found: String },
    /// A name or another option is not UTF-8.
    #[error("'{key}' in {table_name} is not UTF-8. Cut text between characters, with utf8.offset")]
    NotUtf8 { key: String, table_name: &'static str },
    /// A required key is missing.
    #[error("{table_name} needs '{key}': {expected}")]
    Missing { key: String, table_name: &'static str, expected: String },
    /// A value is out of its range, or does not fit another value.
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
