//! Linear attention with a state that decays per channel.

use super::builder::{EMBEDDING_LENGTH, FEED_FORWARD_LENGTH, LAYERS, ModelBuilder};
use crate::tensor::{Format, Tensor};

/// The width of a head and of its state. llama.cpp's GPU kernels support 64 and 128.
const HEAD_SIZE: u64 = 64;
/// The inner size of the small matrix pairs that compute decays, learning rates and mixed values.
const RANK: u64 = 32;
/// The inner size of the matrix pair that computes gates.
const GATE_RANK: u64 = 64;

pub(super) fn rwkv7(builder: &mut ModelBuilder, vocabulary: u64) {
    builder.set_keys(&[
        ("feed_forward_length", FEED_FORWARD_LENGTH),
        ("wkv.head_size", HEAD_SIZE),
        ("attention.decay_lora_rank", RANK),
        ("attention.iclr_lora_rank", RANK),
        ("attention.value_residual_mix_lora_rank", RANK),
        ("attention.gate_lora_rank", GATE_RANK),
    ]);
    builder.writer.set_f32("attention.layer_norm_epsilon", 1e-5);
    builder.matrix("output.weight", &[EMBEDDING_LENGTH, vocabulary]);
    builder.vector("output_norm.bias", EMBEDDING_LENGTH, 0.0);
    norm(builder, "token_embd_norm");
    for layer in 0..LAYERS {
        norm(builder, &format!("blk.{layer}.attn_norm"));
        norm(builder, &format!("blk.{layer}.attn_norm_2"));
        time_mix(builder, layer);
        channel_mix(builder, layer);
    }
}

/// A norm with a bias.
fn norm(builder: &mut ModelBuilder, name: &str) {
    builder.vector(&format!("{name}.weight"), EMBEDDING_LENGTH, 1.0);
    builder.vector(&format!("{name}.bias"), EMBEDDING_LENGTH, 0.0);
}

/// The part of a layer that mixes tokens.
fn time_mix(builder: &mut ModelBuilder, layer: u64) {
    let name = |name: &str| format!("blk.{layer}.time_mix_{name}");
    norm(builder, &name("ln"));
    for (part, rank) in [("w", RANK), ("a", RANK), ("v", RANK), ("g", GATE_RANK)] {
        if part != "g" {
            builder.random(&name(&format!("{part}0.weight")), &[EMBEDDING_LENGTH], Format::F32, 0.5);
        }
        builder.matrix(&name(&format!("{part}1.weight")), &[EMBEDDING_LENGTH, rank]);
        builder.matrix(&name(&format!("{part}2.weight")), &[rank, EMBEDDING_LENGTH]);
    }
    for part in ["receptance", "key", "value", "output"] {
        builder.matrix(&name(&format!("{part}.weight")), &[EMBEDDING_LENGTH, EMBEDDING_LENGTH]);
    }
    for part in ["k_k", "k_a"] {
        builder.vector(&name(&format!("{part}.weight")), EMBEDDING_LENGTH, 1.0);
    }
    builder.random(&name("r_k.weight"), &[EMBEDDING_LENGTH], Format::F32, 0.1);
    // The shares of the token before, for each of the six inputs.
    let shares = Tensor::constant(&[EMBEDDING_LENGTH, 1, 1, 6], 0.5);
    builder.writer.add_tensor(name("lerp_fused.weight"), shares);
}

/// The feed-forward part of a layer.
fn channel_mix(builder: &mut ModelBuilder, layer: u64) {
    let name = |name: &str| format!("blk.{layer}.channel_mix_{name}.weight");
    builder.writer.add_tensor(name("lerp_k"), Tensor::constant(&[EMBEDDING_LENGTH, 1, 1], 0.5));
    builder.matrix(&name("key"), &[EMBEDDING_LENGTH, FEED_FORWARD_LENGTH]);
    builder.matrix(&name("value"), &[FEED_FORWARD_LENGTH, EMBEDDING_LENGTH]);
}
