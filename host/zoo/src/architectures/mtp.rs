//! MTP blocks, also called NextN layers. Such a block computes the token after the next one from the next token and the
//! hidden state before it.

use super::builder::ModelBuilder;

/// Makes the layer `layer` an MTP block, which must be the last layer. Adds the tensors at its input and output.
pub(super) fn mtp_block(builder: &mut ModelBuilder, layer: u64) {
    builder.set_keys(&[("block_count", layer + 1), ("nextn_predict_layers", 1)]);
    builder.norms(layer, &["nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"]);
    let projection = format!("blk.{layer}.nextn.eh_proj.weight");
    let size = builder.dimensions.embedding_length;
    builder.matrix(&projection, &[2 * size, size]);
}
