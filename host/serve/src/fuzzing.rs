//! Fuzz targets. Each parses any bytes, and panics if a parser has a fault.

use crate::body::checked;
use crate::body::fields::RequestBody;
use crate::reply::tools::joined_parts;

/// A request is refused or becomes requests for backends. The first byte chooses the endpoint.
pub fn request_body(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let Ok(body) = RequestBody::parse(bytes) else { return };
    let check = if kind % 2 == 0 { checked::chat } else { checked::completion };
    if let Ok(checked) = check(body, "fuzz") {
        assert!(!checked.requests.is_empty());
    }
}

/// Text gives the same parts at every cut. The first byte chooses the length of the pieces.
pub fn tool_call(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    let characters: Vec<char> = text.chars().collect();
    let pieces: Vec<String> =
        characters.chunks(usize::from(*length).max(1)).map(|piece| piece.iter().collect()).collect();
    assert_eq!(joined_parts(pieces.iter().map(String::as_str)), joined_parts([&*text].into_iter()));
}
