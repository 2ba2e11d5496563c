//! The `tightwad` binary.

use std::io::Write;

fn main() -> ! {
    // Must run before any other thread starts.
    tightwad_engine::select_row_invariant_kernels();
    let code = tightwad::cli::main();
    let _ = std::io::stdout().flush();
    // A detached thread may still be inside llama.cpp.
    tightwad_engine::exit(code)
}
