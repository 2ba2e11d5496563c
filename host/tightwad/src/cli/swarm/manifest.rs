//! `tightwad swarm manifest`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;
use tightwad_core::Size;
use tightwad_modes::swarm;

use crate::app::progress::hashing;

/// Makes a model's manifest.
#[derive(Debug, clap::Args)]
pub(crate) struct Manifest {
    /// The model's file.
    file: PathBuf,
    /// The name by which others ask for it; default: the model's own, or the file's.
    #[arg(long)]
    name: Option<String>,
    /// Largest piece; default: that of the manifest beside the file, or 64M. Another size makes another
    /// manifest, and another swarm.
    #[arg(long, value_name = "SIZE")]
    piece: Option<Size>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Manifest {
    pub(crate) async fn run(self) -> Result<()> {
        let facts = std::fs::metadata(&self.file);
        let bytes = facts.with_context(|| format!("cannot read {}", self.file.display()))?.len();
        let progress = hashing(&self.file.display().to_string(), bytes);
        let store =
            swarm::whole(&self.file, self.name.as_deref(), self.piece.map(|piece| piece.0), progress).await?;
        let (manifest, facts) = (store.manifest(), store.manifest().facts());
        let blocks: usize = manifest.pieces().iter().map(|piece| piece.blocks.len()).sum();
        if self.json {
            let pieces = manifest.pieces().len();
            println!(
                "{}",
                json!({"name": manifest.name(), "root": manifest.root(), "size": manifest.size(), "pieces": pieces,
                    "blocks": blocks, "architecture": facts.architecture, "quantization": facts.quantization(),
                    "context": facts.context, "chat_template": facts.chat_template})
            );
            return Ok(());
        }
        println!("{}@{}", manifest.name(), manifest.root());
        println!("{} in {} pieces of {blocks} blocks", Size(manifest.size()), manifest.pieces().len());
        let known = [
            facts.architecture.clone().map(|architecture| format!("architecture {architecture}")),
            facts.quantization().map(|quantization| quantization.into_owned()),
            facts.context.map(|context| format!("context {context}")),
            facts.chat_template.map(|digest| format!("chat template {:.8}…", digest.to_string())),
        ];
        let known: Vec<String> = known.into_iter().flatten().collect();
        if !known.is_empty() {
            println!("{}", known.join(", "));
        }
        Ok(())
    }
}
