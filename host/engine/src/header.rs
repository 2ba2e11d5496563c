//! Checks of a GGUF file's first bytes.

use std::io::Read;
use std::path::Path;

use crate::error::LoadError;

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> LoadError {
    LoadError::Unreadable { path: path.to_owned(), reason: error.to_string() }
}

pub(crate) fn check_header(path: &Path) -> Result<(), LoadError> {
    let unreadable = |error: std::io::Error| unreadable(path, &error);
    let mut magic = [0u8; 4];
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    match file.read_exact(&mut magic) {
        Ok(()) if &magic == b"GGUF" => Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(unreadable(error)),
        _ => Err(LoadError::Malformed {
            path: path.to_owned(),
            reason: "it does not begin with GGUF".to_owned(),
        }),
    }
}
