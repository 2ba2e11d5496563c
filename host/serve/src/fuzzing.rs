//! Fuzz targets. Each parses any bytes, and panics if a parser has a fault.

use crate::body::checked;
use crate::body::fields::RequestBody;
use crate::reply::tools::{Part, ToolCallParser};

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
    assert_eq!(split(pieces.iter().map(String::as_str)), split([&*text].into_iter()));
}

/// The parts of a text that arrives in pieces. Adjacent texts are joined.
fn split<'a>(pieces: impl Iterator<Item = &'a str>) -> Vec<Part> {
    let mut parser = ToolCallParser::default();
    let mut parts: Vec<Part> = pieces.flat_map(|piece| parser.push(piece)).collect();
    parts.extend(parser.finish());
    parts.into_iter().fold(Vec::new(), |mut joined, part| {
        match (joined.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
            (_, part) => joined.push(part),
        }
        joined
    })
}
