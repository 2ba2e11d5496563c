//! `tightwad quantize`: the cheapest drafter for a model is a smaller copy of itself.

use std::path::PathBuf;

use anyhow::Result;
use tightwad_engine::Quantization;

/// Makes a smaller copy of a model.
#[derive(Debug, clap::Args)]
pub(crate) struct Quantize {
    /// The GGUF file to copy.
    source: PathBuf,
    /// The GGUF file to write.
    target: PathBuf,
    /// q2_k, q3_k_m, q4_k_m, q8_0 or f16.
    #[arg(long, default_value = "q2_k")]
    kind: Quantization,
}

impl Quantize {
    pub(crate) fn run(self) -> Result<()> {
        // Half a file must never look like a whole one.
        let part = self.target.with_extension("gguf.part");
        tightwad_engine::quantize(&self.source, &part, self.kind)?;
        std::fs::rename(&part, &self.target)?;
        Ok(())
    }
}
