//! Short convolutions with attention between them.

use super::builder::{EMBEDDING_LENGTH, LAYERS, ModelBuilder};
use crate::tensor::Format;

pub(super) fn lfm2(builder: &mut ModelBuilder) {
    builder.writer.set_u32("shortconv.l_cache", 3);
    let attends = |layer: u64| layer % 3 == 2;
    builder.attention_layers(attends);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "ffn_norm"]);
        builder.feed_forward(layer);
        if attends(layer) {
            builder.attention(layer, 1, true);
            continue;
        }
        let name = |name: &str| format!("blk.{layer}.shortconv.{name}.weight");
        builder.random(&name("conv"), &[3, EMBEDDING_LENGTH], Format::F32, 0.6);
        builder.matrix(&name("in_proj"), &[EMBEDDING_LENGTH, 3 * EMBEDDING_LENGTH]);
        builder.matrix(&name("out_proj"), &[EMBEDDING_LENGTH, EMBEDDING_LENGTH]);
    }
}
