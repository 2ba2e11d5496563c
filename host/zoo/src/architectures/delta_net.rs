//! Gated delta nets in three of four layers, and attention in the fourth.

use super::builder::{EMBEDDING_LENGTH, ModelBuilder};
use super::mtp;
use crate::tensor::Format;

/// The number of layers, without an MTP block.
pub(super) const LAYERS: u64 = 8;
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
    delta_net_keys(builder);
    builder.writer.set_i32_list("rope.dimension_sections", &[4, 4, 4, 4]);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "post_attention_norm"]);
        builder.feed_forward(layer);
        mixer(builder, layer, false);
    }
}

pub(super) fn qwen35_mtp(builder: &mut ModelBuilder) {
    qwen35(builder);
    builder.norms(LAYERS, &["attn_norm", "post_attention_norm"]);
    builder.feed_forward(LAYERS);
    gated_attention(builder, LAYERS);
    mtp::mtp_block(builder, LAYERS);
}

pub(super) fn qwen3next(builder: &mut ModelBuilder) {
    let (experts, inner) = (8, 64);
    delta_net_keys(builder);
    builder.expert_counts(experts, 2, inner);
    builder.writer.set_u32("expert_shared_feed_forward_length", inner as u32);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "post_attention_norm"]);
        mixer(builder, layer, true);
        builder.experts(layer, experts, inner, false);
        builder.shared_expert(layer, &["gate", "up", "down"], inner);
        let gate = format!("blk.{layer}.ffn_gate_inp_shexp.weight");
        builder.random(&gate, &[EMBEDDING_LENGTH], Format::F32, 0.1);
    }
}

fn delta_net_keys(builder: &mut ModelBuilder) {
    builder.set_keys(&[
        ("block_count", LAYERS),
        ("ssm.conv_kernel", CONVOLUTION_TOKENS),
        ("ssm.inner_size", STATE_SIZE * VALUE_HEADS),
        ("ssm.state_size", STATE_SIZE),
        ("ssm.time_step_rank", VALUE_HEADS),
        ("ssm.group_count", KEY_HEADS),
        ("full_attention_interval", ATTENTION_INTERVAL),
    ]);
}

/// Attention whose query matrix also computes a gate of the same size.
fn gated_attention(builder: &mut ModelBuilder, layer: u64) {
    builder.attention(layer, 2, true);
}

/// The attention or the delta net of a layer. `joined` puts the matrices of the gates alpha and beta into one.
fn mixer(builder: &mut ModelBuilder, layer: u64, joined: bool) {
    if layer % ATTENTION_INTERVAL == ATTENTION_INTERVAL - 1 {
        gated_attention(builder, layer);
        return;
    }
    let (keys, values) = (STATE_SIZE * KEY_HEADS, STATE_SIZE * VALUE_HEADS);
    let name = |name: &str| format!("blk.{layer}.{name}");
    builder.matrix(&name("attn_qkv.weight"), &[EMBEDDING_LENGTH, 2 * keys + values]);
    builder.matrix(&name("attn_gate.weight"), &[EMBEDDING_LENGTH, values]);
    builder.random(&name("ssm_conv1d.weight"), &[CONVOLUTION_TOKENS, 2 * keys + values], Format::F32, 0.5);
    builder.random(&name("ssm_dt.bias"), &[VALUE_HEADS], Format::F32, 0.1);
    builder.vector(&name("ssm_a"), VALUE_HEADS, -0.2);
    if joined {
        builder.matrix(&name("ssm_ba.weight"), &[EMBEDDING_LENGTH, 2 * VALUE_HEADS]);
    } else {
        builder.matrix(&name("ssm_beta.weight"), &[EMBEDDING_LENGTH, VALUE_HEADS]);
        builder.matrix(&name("ssm_alpha.weight"), &[EMBEDDING_LENGTH, VALUE_HEADS]);
    }
    builder.vector(&name("ssm_norm.weight"), STATE_SIZE, 1.0);
    builder.matrix(&name("ssm_out.weight"), &[values, EMBEDDING_LENGTH]);
}
