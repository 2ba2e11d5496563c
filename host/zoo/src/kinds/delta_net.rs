//! Gated delta nets in three of four layers, and attention in the fourth.

use super::builder::{EMBEDDING_LENGTH, ModelBuilder};
use crate::tensor::Format;

/// The number of layers.
const LAYERS: u64 = 8;
/// The width of a head's state.
const STATE_SIZE: u64 = 32;
/// The number of heads of keys.
const KEY_HEADS: u64 = 4;
/// The number of heads of values.
const VALUE_HEADS: u64 = 8;
/// The number of tokens that a convolution reads.
const CONVOLUTION_TOKENS: u64 = 4;
/// The distance of attention layers.
const ATTENTION_INTERVAL: u64 = 4;

pub(super) fn qwen35(builder: &mut ModelBuilder) {
    delta_net_keys(builder, LAYERS);
    builder.writer.set_i32_list("rope.dimension_sections", &[4, 4, 4, 4]);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "post_attention_norm"]);
        builder.feed_forward(layer);
        mixer(builder, layer);
    }
}

fn delta_net_keys(builder: &mut ModelBuilder, layers: u64) {
    builder.set_keys(&[
        ("block_count", layers),
        ("ssm.conv_kernel", CONVOLUTION_TOKENS),
        ("ssm.inner_size", STATE_SIZE * VALUE_HEADS),
        ("ssm.state_size", STATE_SIZE),
        ("ssm.time_step_rank", VALUE_HEADS),
        ("ssm.group_count", KEY_HEADS),
        ("full_attention_interval", ATTENTION_INTERVAL),
    ]);
}

/// The attention or the delta net of a layer.
fn mixer(builder: &mut ModelBuilder, layer: u64) {
    if layer % ATTENTION_INTERVAL == ATTENTION_INTERVAL - 1 {
        // The query matrix also computes a gate of the same size.
        builder.attention(layer, 2, true);
        return;
    }
    let (keys, values) = (STATE_SIZE * KEY_HEADS, STATE_SIZE * VALUE_HEADS);
    let name = |name: &str| format!("blk.{layer}.{name}");
    builder.matrix(&name("attn_qkv.weight"), &[EMBEDDING_LENGTH, 2 * keys + values]);
    builder.matrix(&name("attn_gate.weight"), &[EMBEDDING_LENGTH, values]);
    builder.random(&name("ssm_conv1d.weight"), &[CONVOLUTION_TOKENS, 2 * keys + values], Format::F32, 0.5);
    builder.random(&name("ssm_dt.bias"), &[VALUE_HEADS], Format::F32, 0.1);
    builder.vector(&name("ssm_a"), VALUE_HEADS, -0.2);
    builder.matrix(&name("ssm_beta.weight"), &[EMBEDDING_LENGTH, VALUE_HEADS]);
    builder.matrix(&name("ssm_alpha.weight"), &[EMBEDDING_LENGTH, VALUE_HEADS]);
    builder.vector(&name("ssm_norm.weight"), STATE_SIZE, 1.0);
    builder.matrix(&name("ssm_out.weight"), &[values, EMBEDDING_LENGTH]);
}
