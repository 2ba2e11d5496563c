//! Fuzz targets. Each parses any bytes, and panics if a parser has a fault.

use crate::answer_parser::AnswerParser;
use crate::dialect::Dialect;

/// The lines of a streamed answer. The first byte chooses the dialect.
pub fn answer(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let dialect = [Dialect::OpenAi, Dialect::LlamaServer, Dialect::Ollama][usize::from(kind % 3)];
    let mut parser = AnswerParser::new(dialect, (kind & 4 != 0).then_some(2));
    let mut pieces = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        match parser.parse_line(line.trim_ascii_end()) {
            Ok(piece) => pieces += u32::from(piece.is_some_and(|piece| !piece.is_empty())),
            Err(_) => return,
        }
        if parser.has_ended() {
            break;
        }
    }
    assert_eq!(parser.pieces(), pieces);
    if parser.finish().is_some() {
        assert_eq!(parser.finish(), Some(None), "the tool calls come once");
    }
    assert!(parser.usage().completion_tokens >= u32::from(pieces > 0));
}
