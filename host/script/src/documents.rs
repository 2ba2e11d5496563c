//! Tests of the Lua blocks in the README and in the book, with fake backends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fake_factory::FakeFactory;
use crate::loader::load_text;

/// A block of Lua in a document.
struct Block {
    /// File and line, for messages.
    place: String,
    text: String,
    /// True if the block is a complete script.
    complete: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The README and the pages of the book.
fn documents() -> Vec<PathBuf> {
    let mut files = vec![root().join("README.md")];
    let mut folders = vec![root().join("host/book/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for document in documents() {
        let mut current_block = None;
        for (number, line) in std::fs::read_to_string(&document).unwrap().lines().enumerate() {
            match (&mut current_block, line) {
                (None, "```lua" | "```lua,fragment") => {
                    let place = format!("{}:{}", document.display(), number + 2);
                    current_block = Some(Block { place, text: String::new(), complete: line == "```lua" });
                }
                (Some(_), "```") => blocks.extend(current_block.take()),
                (Some(block), line) => block.text.push_str(&format!("{line}\n")),
                (None, _) => {}
            }
        }
    }
    blocks
}

#[tokio::test]
async fn complete_blocks_load_and_serve_models() {
    let mut scripts = 0;
    for block in blocks().into_iter().filter(|block| block.complete) {
        let source = block.text.into_bytes();
        let loaded = load_text(&block.place, source, &root(), Arc::new(FakeFactory), &[]).await;
        let script = loaded.unwrap_or_else(|error| panic!("{}: {error}", block.place));
        assert!(!script.models.is_empty(), "{} serves no model", block.place);
        scripts += 1;
    }
    assert!(scripts > 5, "the README and the book have only {scripts} scripts");
}

#[test]
fn fragments_are_valid_lua() {
    let lua = mlua::Lua::new();
    for block in blocks().iter().filter(|block| !block.complete) {
        let compiled = lua.load(&block.text).into_function();
        assert!(compiled.is_ok(), "{}: {}", block.place, compiled.unwrap_err());
    }
}
