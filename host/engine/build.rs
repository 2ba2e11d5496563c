//! Compiles `src/llama/shim.cpp` against the headers of the llama.cpp that the crate `llama-cpp-sys-2` builds.

use std::path::PathBuf;

/// The folder of llama.cpp's source, from the build script of `tightwad-chat`.
const SOURCE_VARIABLE: &str = "DEP_TIGHTWAD_CHAT_LLAMA_SOURCE";

fn main() {
    println!("cargo::rerun-if-changed=src/llama/shim.cpp");
    println!("cargo::rerun-if-env-changed={SOURCE_VARIABLE}");
    let Some(source) = std::env::var_os(SOURCE_VARIABLE).map(PathBuf::from) else {
        println!("cargo::error=the source of llama.cpp was not found: {SOURCE_VARIABLE} is not set");
        return;
    };
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("src/llama/shim.cpp");
    for folder in ["include", "src", "ggml/include"] {
        build.include(source.join(folder));
    }
    build.compile("tightwad_llama_shim");
}
