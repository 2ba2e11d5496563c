//! Runs the target `TIGHTWAD_FUZZ_TARGET` under libFuzzer, with libFuzzer's arguments.

#![no_main]
// libFuzzer calls a function without name mangling, which the macro defines.
#![allow(unsafe_code)]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tightwad_fuzz::{TARGETS, Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TIGHTWAD_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let names = TARGETS.map(|target| target.name).join(", ");
        eprintln!("error: TIGHTWAD_FUZZ_TARGET is '{name}'. Set it to one of {names}.");
        std::process::exit(2)
    })
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
