//! Models with attention in each layer.

use super::builder::{EMBEDDING_LENGTH, HEAD_SIZE, HEADS, KV_HEADS, LAYERS, ModelBuilder};
use crate::tensor::Format;

pub(super) fn llama(builder: &mut ModelBuilder) {
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "ffn_norm"]);
        builder.attention(layer, 1, false);
        builder.feed_forward(layer);
    }
}

pub(super) fn qwen3moe(builder: &mut ModelBuilder, experts: u64, used: u64, inner: u64) {
    builder.expert_counts(experts, used, inner);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "ffn_norm"]);
        builder.attention(layer, 1, true);
        builder.experts(layer, experts, inner, false);
    }
}

pub(super) fn gpt_oss(builder: &mut ModelBuilder, vocabulary: u64) {
    builder.expert_counts(8, 4, 128);
    builder.writer.set_u32("attention.sliding_window", 128);
    builder.matrix("output.weight", &[EMBEDDING_LENGTH, vocabulary]);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "post_attention_norm"]);
        builder.attention(layer, 1, false);
        builder.experts(layer, 8, 128, true);
        builder.random(&format!("blk.{layer}.attn_sinks.weight"), &[HEADS], Format::F32, 1.0);
        for (part, size) in [
            ("q", HEADS * HEAD_SIZE),
            ("k", KV_HEADS * HEAD_SIZE),
            ("v", KV_HEADS * HEAD_SIZE),
            ("output", EMBEDDING_LENGTH),
        ] {
            builder.random(&format!("blk.{layer}.attn_{part}.bias"), &[size], Format::F32, 0.1);
        }
    }
}

pub(super) fn gemma3(builder: &mut ModelBuilder) {
    builder.writer.set_u32("attention.sliding_window", 64);
    for layer in 0..LAYERS {
        builder.norms(layer, &["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]);
        builder.attention(layer, 1, true);
        builder.feed_forward(layer);
    }
}
