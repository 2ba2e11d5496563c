//! Compiles the chat part of llama.cpp's `common` library, from the source that the crate `llama-cpp-sys-2` builds, and
//! `native/shim.cpp`. The rest of `common` is half of llama.cpp's build time and is not needed.

use std::path::{Path, PathBuf};

/// Files of `common`, without those of `common/parsers`. The shim includes `chat.cpp`.
const FILES: [&str; 16] = [
    "chat-auto-parser-generator.cpp",
    "chat-auto-parser-helpers.cpp",
    "chat-diff-analyzer.cpp",
    "chat-peg-parser.cpp",
    "jinja/caps.cpp",
    "jinja/lexer.cpp",
    "jinja/parser.cpp",
    "jinja/runtime.cpp",
    "jinja/string.cpp",
    "jinja/value.cpp",
    "json-schema-to-grammar.cpp",
    "json-schema.cpp",
    "json.cpp",
    "peg-parser.cpp",
    "trie.cpp",
    "unicode.cpp",
];

fn main() {
    println!("cargo::rerun-if-changed=native");
    if let Err(reason) = build() {
        println!("cargo::error=the chat templates of llama.cpp cannot be built: {reason}");
    }
}

fn build() -> Result<(), String> {
    let source = llama_source()?;
    println!("cargo::metadata=llama_source={}", source.display());
    let common = source.join("common");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false);
    // `common` asserts what its users can cause. The shim's header makes errors of these assertions.
    build.define("NDEBUG", None);
    build.flag("-include").flag("native/assert.h");
    build.include(&common);
    for folder in ["vendor", "include", "ggml/include"] {
        build.include(source.join(folder));
    }
    build.files(FILES.iter().map(|file| common.join(file))).files(parsers(&common.join("parsers"))?);
    build.file("native/shim.cpp");
    // Templates are interpreted: without optimization, tests would spend their time here.
    build.opt_level(2);
    build.try_compile("tightwad_chat").map_err(|error| error.to_string())
}

fn parsers(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cpp"));
    files.sort();
    Ok(files)
}

/// The folder of llama.cpp's source, as CMake has noted it.
fn llama_source() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=DEP_LLAMA_ROOT");
    let root = std::env::var_os("DEP_LLAMA_ROOT").ok_or("DEP_LLAMA_ROOT is not set")?;
    let notes = Path::new(&root).join("build/CMakeCache.txt");
    let text = std::fs::read_to_string(&notes).map_err(|error| format!("{}: {error}", notes.display()))?;
    let folder = text.lines().find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    folder.map(PathBuf::from).ok_or_else(|| format!("{} has no CMAKE_HOME_DIRECTORY", notes.display()))
}
