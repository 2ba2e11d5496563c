//! The `tightwad` binary.

use std::io::Write;

fn main() -> ! {
    // Before any thread is started, as it asks.
    tightwad_engine::prepare();
    let code = tightwad::cli::main();
    let _ = std::io::stdout().flush();
    // A thread that is not waited for may still be inside llama.cpp.
    tightwad_engine::exit(code)
}
