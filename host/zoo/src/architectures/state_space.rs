//! State space layers, alone and with attention.

use super::builder::{EMBEDDING_LENGTH, KV_HEADS, LAYERS, ModelBuilder};
use crate::tensor::{Format, Tensor};

/// The number of activations inside a state space layer.
const INNER_SIZE: u64 = 512;
/// The width of a head's state.
const STATE_SIZE: u64 = 64;
/// The number of groups that share input and output matrices.
const GROUPS: u64 = 1;
/// The number of heads.
const STATE_HEADS: u64 = 8;
/// The number of tokens that a convolution reads.
const CONVOLUTION_TOKENS: u64 = 4;

pub(super) fn mamba2(builder: &mut ModelBuilder) {
    state_space_keys(builder);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm"]);
        state_space(builder, layer);
    }
}

pub(super) fn granite_hybrid(builder: &mut ModelBuilder) {
    let (experts, inner) = (8, 128);
    state_space_keys(builder);
    builder.expert_counts(experts, 2, inner);
    builder.set_keys(&[("feed_forward_length", inner), ("expert_shared_feed_forward_length", inner)]);
    for (key, value) in
        [("embedding_scale", 0.5), ("residual_scale", 0.8), ("attention.scale", 0.2), ("logit_scale", 2.0)]
    {
        builder.writer.set_f32(key, value);
    }
    let attends = |layer: u64| layer % 3 == 2;
    builder.attention_layers(attends);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "ffn_norm"]);
        if attends(layer) {
            builder.attention(layer, 1, false);
        } else {
            state_space(builder, layer);
        }
        builder.experts(layer, experts, inner, false);
        builder.shared_expert(layer, &["gate", "up", "down"], inner);
    }
}

pub(super) fn falcon_h1(builder: &mut ModelBuilder) {
    state_space_keys(builder);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm"]);
        // llama.cpp reads this norm without the usual suffix.
        builder.vector(&format!("blk.{layer}.ffn_norm"), EMBEDDING_LENGTH, 1.0);
        builder.attention(layer, 1, false);
        state_space(builder, layer);
        builder.feed_forward(layer);
    }
}

/// The content of a layer of [`nemotron_h_moe`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    StateSpace,
    Attention,
    Experts,
}

pub(super) fn nemotron_h_moe(builder: &mut ModelBuilder) {
    use Content::{Attention, Experts, StateSpace};
    let layers = [StateSpace, Experts, StateSpace, Attention, Experts, StateSpace, Attention, Experts];
    let (experts, inner) = (8, 128);
    state_space_keys(builder);
    builder.expert_counts(experts, 2, inner);
    builder.set_keys(&[
        ("block_count", layers.len() as u64),
        ("expert_shared_count", 1),
        ("expert_shared_feed_forward_length", inner),
    ]);
    builder.writer.set_bool("expert_weights_norm", true);
    builder.writer.set_f32("expert_weights_scale", 2.5);
    builder.writer.set_f32("attention.layer_norm_epsilon", 1e-5);
    let sizes = |content, size: u64| layers.map(|layer| if layer == content { size as i32 } else { 0 });
    builder.writer.set_i32_list("attention.head_count_kv", &sizes(Attention, KV_HEADS));
    builder.writer.set_i32_list("feed_forward_length", &sizes(Experts, inner));
    for (layer, content) in (0..).zip(layers) {
        builder.norms(layer, &["attn_norm"]);
        match content {
            StateSpace => state_space(builder, layer),
            Attention => builder.attention(layer, 1, false),
            Experts => ungated_experts(builder, layer, experts, inner),
        }
    }
}

/// A mixture of experts without gates, with a shared expert.
fn ungated_experts(builder: &mut ModelBuilder, layer: u64, experts: u64, inner: u64) {
    builder.router(layer, experts, false);
    builder.selection_bias(layer, experts);
    for part in ["up", "down"] {
        builder.expert_matrices(layer, part, experts, inner);
    }
    builder.shared_expert(layer, &["up", "down"], inner);
}

fn state_space_keys(builder: &mut ModelBuilder) {
    builder.set_keys(&[
        ("ssm.conv_kernel", CONVOLUTION_TOKENS),
        ("ssm.inner_size", INNER_SIZE),
        ("ssm.state_size", STATE_SIZE),
        ("ssm.time_step_rank", STATE_HEADS),
        ("ssm.group_count", GROUPS),
    ]);
}

/// The state space part of a layer.
fn state_space(builder: &mut ModelBuilder, layer: u64) {
    let convolved = INNER_SIZE + 2 * GROUPS * STATE_SIZE;
    let name = |name: &str| format!("blk.{layer}.ssm_{name}");
    builder.matrix(&name("in.weight"), &[EMBEDDING_LENGTH, INNER_SIZE + convolved + STATE_HEADS]);
    builder.random(&name("conv1d.weight"), &[CONVOLUTION_TOKENS, convolved], Format::F32, 0.5);
    builder.random(&name("conv1d.bias"), &[convolved], Format::F32, 0.1);
    builder.random(&name("dt.bias"), &[STATE_HEADS], Format::F32, 0.1);
    for (part, value) in [("a", -1.0), ("d", 1.0)] {
        builder.writer.add_tensor(name(part), Tensor::constant(&[1, STATE_HEADS], value));
    }
    builder.writer.add_tensor(name("norm.weight"), Tensor::constant(&[INNER_SIZE / GROUPS, GROUPS], 1.0));
    builder.matrix(&name("out.weight"), &[INNER_SIZE, EMBEDDING_LENGTH]);
}
