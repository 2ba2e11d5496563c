//! `tightwad swarm manifest`: hashes a file and prints its digest.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;
use tightwad_core::Size;
use tightwad_modes::swarm;

use crate::app::progress::hashing;

/// Makes the manifest of a model and prints NAME@DIGEST.
#[derive(Debug, clap::Args)]
pub(crate) struct Manifest {
    /// Model file.
    file: PathBuf,
    /// Name of the model in the swarm. Default: the name in the file, or the file's name.
    #[arg(long)]
    name: Option<String>,
    /// Greatest size of a piece. Default: the size in the manifest beside the file, or 64M. Another size gives
    /// another digest, and so another swarm.
    #[arg(long, value_name = "SIZE")]
    piece_size: Option<Size>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Manifest {
    pub(crate) async fn run(self) -> Result<()> {
        let metadata = std::fs::metadata(&self.file);
        let bytes = metadata.with_context(|| format!("cannot read {}", self.file.display()))?.len();
        let progress = hashing(&self.file.display().to_string(), bytes);
        let store = swarm::open_complete(
            &self.file,
            self.name.as_deref(),
            self.piece_size.map(|size| size.0),
            progress,
        )
        .await?;
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
        let properties = [
            facts.architecture.clone().map(|architecture| format!("architecture {architecture}")),
            facts.quantization().map(|quantization| quantization.into_owned()),
            facts.context.map(|context| format!("context {context}")),
            facts.chat_template.map(|digest| format!("chat template {:.8}…", digest.to_string())),
        ];
        let properties: Vec<String> = properties.into_iter().flatten().collect();
        if !properties.is_empty() {
            println!("{}", properties.join(", "));
        }
        Ok(())
    }
}
