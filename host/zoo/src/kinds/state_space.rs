//! State space layers.

use super::builder::{EMBEDDING_LENGTH, LAYERS, ModelBuilder};
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
