//! Gated delta nets in three of four layers, and attention in the fourth.

use super::builder::{EMBEDDING_LENGTH, ModelBuilder};
use super::mtp;
use crate::tensor::Format;

/// The sizes of delta nets.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeltaNet {
    /// The number of layers, without an MTP block.
    pub layers: u64,
    /// The width of a head's state.
    state_size: u64,
    /// The number of heads of keys.
    key_heads: u64,
    /// The number of heads of values.
    value_heads: u64,
}

impl DeltaNet {
    pub(super) const SMALL: Self = Self { layers: 8, state_size: 32, key_heads: 4, value_heads: 8 };
    /// The sizes of Qwen3.5 0.8B.
    pub(super) const LARGE: Self = Self { layers: 24, state_size: 128, key_heads: 16, value_heads: 16 };
}

/// The number of tokens that a convolution reads.
const CONVOLUTION_TOKENS: u64 = 4;
/// The distance of attention layers.
const ATTENTION_INTERVAL: u64 = 4;

pub(super) fn qwen35(builder: &mut ModelBuilder, size: DeltaNet) {
    delta_net_keys(builder, size);
    builder.writer.set_i32_list("rope.dimension_sections", &[4, 4, 4, 4]);
    for layer in 0..size.layers {
        builder.norms(layer, &["attn_norm", "post_attention_norm"]);
        builder.feed_forward(layer);
        mixer(builder, layer, size, false);
    }
}

pub(super) fn qwen35_mtp(builder: &mut ModelBuilder, size: DeltaNet) {
    qwen35(builder, size);
    let layer = size.layers;
    builder.norms(layer, &["attn_norm", "post_attention_norm"]);
    builder.feed_forward(layer);
    gated_attention(builder, layer);
    mtp::mtp_block(builder, layer);
}

pub(super) fn qwen3next(builder: &mut ModelBuilder) {
    let (experts, inner, size) = (8, 64, DeltaNet::SMALL);
    delta_net_keys(builder, size);
    builder.expert_counts(experts, 2, inner);
    builder.writer.set_u32("expert_shared_feed_forward_length", inner as u32);
    for layer in 0..size.layers {
        builder.norms(layer, &["attn_norm", "post_attention_norm"]);
        mixer(builder, layer, size, true);
        builder.experts(layer, experts, inner, false);
        builder.shared_expert(layer, &["gate", "up", "down"], inner);
        let gate = format!("blk.{layer}.ffn_gate_inp_shexp.weight");
        builder.random(&gate, &[EMBEDDING_LENGTH], Format::F32, 0.1);
    }
}

fn delta_net_keys(builder: &mut ModelBuilder, size: DeltaNet) {
    builder.set_keys(&[
        ("block_count", size.layers),
        ("ssm.conv_kernel", CONVOLUTION_TOKENS),
        ("ssm.inner_size", size.state_size * size.value_heads),
        ("ssm.state_size", size.state_size),
        ("ssm.time_step_rank", size.value_heads),
        ("ssm.group_count", size.key_heads),
        ("full_attention_interval", ATTENTION_INTERVAL),
    ]);
}

/// Attention whose query matrix also computes a gate of the same size.
fn gated_attention(builder: &mut ModelBuilder, layer: u64) {
    builder.attention(layer, 2, true);
}

/// The attention or the delta net of a layer. `joined` puts the matrices of the gates alpha and beta into one.
fn mixer(builder: &mut ModelBuilder, layer: u64, size: DeltaNet, joined: bool) {
    if layer % ATTENTION_INTERVAL == ATTENTION_INTERVAL - 1 {
        gated_attention(builder, layer);
        return;
    }
    let DeltaNet { state_size, key_heads, value_heads, .. } = size;
    let (keys, values) = (state_size * key_heads, state_size * value_heads);
    let input = builder.dimensions.embedding_length;
    let name = |name: &str| format!("blk.{layer}.{name}");
    builder.matrix(&name("attn_qkv.weight"), &[input, 2 * keys + values]);
    builder.matrix(&name("attn_gate.weight"), &[input, values]);
    builder.random(&name("ssm_conv1d.weight"), &[CONVOLUTION_TOKENS, 2 * keys + values], Format::F32, 0.5);
    builder.random(&name("ssm_dt.bias"), &[value_heads], Format::F32, 0.1);
    builder.vector(&name("ssm_a"), value_heads, -0.2);
    if joined {
        builder.matrix(&name("ssm_ba.weight"), &[input, 2 * value_heads]);
    } else {
        builder.matrix(&name("ssm_beta.weight"), &[input, value_heads]);
        builder.matrix(&name("ssm_alpha.weight"), &[input, value_heads]);
    }
    builder.vector(&name("ssm_norm.weight"), state_size, 1.0);
    builder.matrix(&name("ssm_out.weight"), &[values, input]);
}
