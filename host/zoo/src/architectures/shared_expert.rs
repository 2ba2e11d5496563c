//! Mixtures of experts with a dense first layer and an expert that each token uses.

use super::builder::{EMBEDDING_LENGTH, HEADS, LAYERS, ModelBuilder};
use super::mtp;

/// The number of experts of a layer.
const EXPERTS: u64 = 8;
/// The number of experts per token, without the shared one.
const USED_EXPERTS: u64 = 2;
/// The number of activations inside an expert.
const EXPERT_SIZE: u64 = 128;
/// The number of layers without experts at the start of the model.
const DENSE_LAYERS: u64 = 1;
/// llama.cpp's number for experts that are weighted by a sigmoid.
const SIGMOID_GATING: u64 = 2;

pub(super) fn deepseek2(builder: &mut ModelBuilder) {
    expert_keys(builder);
    latent_attention_keys(builder);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "ffn_norm"]);
        latent_attention(builder, layer);
        feed_forward(builder, layer);
    }
}

pub(super) fn glm4moe(builder: &mut ModelBuilder) {
    expert_keys(builder);
    for layer in 0..=LAYERS {
        builder.norms(layer, &["attn_norm", "post_attention_norm"]);
        builder.attention(layer, 1, true);
        feed_forward(builder, layer);
    }
    mtp::mtp_block(builder, LAYERS);
}

fn expert_keys(builder: &mut ModelBuilder) {
    builder.expert_counts(EXPERTS, USED_EXPERTS, EXPERT_SIZE);
    builder.set_keys(&[
        ("expert_shared_count", 1),
        ("expert_gating_func", SIGMOID_GATING),
        ("leading_dense_block_count", DENSE_LAYERS),
    ]);
    builder.writer.set_bool("expert_weights_norm", true);
    builder.writer.set_f32("expert_weights_scale", 1.5);
}

/// The feed-forward part or the experts of a layer.
fn feed_forward(builder: &mut ModelBuilder, layer: u64) {
    if layer < DENSE_LAYERS {
        builder.feed_forward(layer);
        return;
    }
    builder.experts(layer, EXPERTS, EXPERT_SIZE, false);
    builder.selection_bias(layer, EXPERTS);
    builder.shared_expert(layer, &["gate", "up", "down"], EXPERT_SIZE);
}

/// The size of compressed queries.
const QUERY_RANK: u64 = 64;
/// The size of compressed keys and values.
const KV_RANK: u64 = 64;
/// The part of a key that depends on the position.
const ROTATED_SIZE: u64 = 32;
/// The part of a key that does not depend on the position.
const UNROTATED_SIZE: u64 = 32;
/// The size of a decompressed value.
const VALUE_SIZE: u64 = 32;

/// The keys of the attention. The cache has one head, with the compressed keys and values of all heads.
fn latent_attention_keys(builder: &mut ModelBuilder) {
    builder.set_keys(&[
        ("attention.head_count_kv", 1),
        ("attention.q_lora_rank", QUERY_RANK),
        ("attention.kv_lora_rank", KV_RANK),
        ("attention.key_length", KV_RANK + ROTATED_SIZE),
        ("attention.value_length", KV_RANK),
        ("attention.key_length_mla", UNROTATED_SIZE + ROTATED_SIZE),
        ("attention.value_length_mla", VALUE_SIZE),
        ("rope.dimension_count", ROTATED_SIZE),
    ]);
}

/// Attention that caches compressed keys and values (MLA).
fn latent_attention(builder: &mut ModelBuilder, layer: u64) {
    let name = |name: &str| format!("blk.{layer}.attn_{name}.weight");
    builder.vector(&name("q_a_norm"), QUERY_RANK, 1.0);
    builder.vector(&name("kv_a_norm"), KV_RANK, 1.0);
    builder.matrix(&name("q_a"), &[EMBEDDING_LENGTH, QUERY_RANK]);
    builder.matrix(&name("q_b"), &[QUERY_RANK, HEADS * (UNROTATED_SIZE + ROTATED_SIZE)]);
    builder.matrix(&name("kv_a_mqa"), &[EMBEDDING_LENGTH, KV_RANK + ROTATED_SIZE]);
    builder.matrix(&name("k_b"), &[UNROTATED_SIZE, KV_RANK, HEADS]);
    builder.matrix(&name("v_b"), &[KV_RANK, VALUE_SIZE, HEADS]);
    builder.matrix(&name("output"), &[HEADS * VALUE_SIZE, EMBEDDING_LENGTH]);
}
