//! The `tightwad` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread is started, as it asks.
    tightwad_engine::prepare();
    tightwad::cli::main()
}
