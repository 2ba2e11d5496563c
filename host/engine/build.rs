//! Compiles `src/llama/shim.cpp` against the headers of the llama.cpp that the crate `llama-cpp-sys-2` builds.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=src/llama/shim.cpp");
    let source = match llama_source() {
        Ok(source) => source,
        Err(reason) => {
            println!("cargo::error=the source of llama.cpp was not found: {reason}");
            return;
        }
    };
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("src/llama/shim.cpp");
    for folder in ["include", "src", "ggml/include"] {
        build.include(source.join(folder));
    }
    build.compile("tightwad_llama_shim");
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
