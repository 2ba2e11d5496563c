//! `tightwad quantize`: makes a smaller copy of a model. The copy is the simplest drafter for the model.

use std::path::PathBuf;

use anyhow::Result;
use tightwad_engine::Quantization;

/// Makes a smaller copy of a model.
#[derive(Debug, clap::Args)]
pub(crate) struct Quantize {
    /// GGUF file to copy.
    input: PathBuf,
    /// GGUF file to write.
    output: PathBuf,
    /// Weight format: q2_k, q3_k_m, q4_k_m, q8_0 or f16.
    #[arg(long = "type", value_name = "TYPE", default_value = "q2_k")]
    format: Quantization,
}

impl Quantize {
    pub(crate) fn run(self) -> Result<()> {
        // An interrupted run must not leave a partial file under the final name.
        let part = self.output.with_extension("gguf.part");
        tightwad_engine::quantize(&self.input, &part, self.format)?;
        std::fs::rename(&part, &self.output)?;
        Ok(())
    }
}
