//! A model that computes a [`TokenCycle`], so that tests know its tokens and the acceptance of its drafts.
//!
//! Each token has a random vector of signs as its embedding. The layers add nothing to it. The row of the output matrix
//! for the token `next(t)` is the embedding of `t`. The MTP block reads the embedding of the last token, ignores the
//! hidden state, and has the same output matrix or a damaged one.

use super::builder::{EMBEDDING_LENGTH, ModelBuilder};
use super::delta_net;
use crate::tensor::{Format, Noise, Tensor};
use crate::token_cycle::{self, TokenCycle};

/// The size of the values of output matrices. The logit of the next token is 64, and other logits are near 0.
const OUTPUT_VALUE: f32 = 64.0 / EMBEDDING_LENGTH as f32;
/// The number of words that hold the signs of an embedding.
const SIGN_WORDS: usize = EMBEDDING_LENGTH as usize / 64;

/// The signs of an embedding, one per bit.
type Signs = [u64; SIGN_WORDS];

pub(super) fn constructed(builder: &mut ModelBuilder, cycle: &TokenCycle) {
    delta_net::qwen35_mtp(builder);
    silence_layers(builder);
    project_the_embedding(builder);
    builder.vector("output_norm.weight", EMBEDDING_LENGTH, 1.0);
    let signs = random_signs(cycle.vocabulary());
    let tokens = 0..cycle.vocabulary();
    let embeddings = tokens.clone().map(|token| Some(signs[token_cycle::index(token)]));
    add_rows(builder, "token_embd.weight", embeddings.collect(), 1.0);
    let next = output_rows(&signs, tokens.clone(), |token| cycle.next(token));
    let drafts = output_rows(&signs, tokens, |token| cycle.draft(token));
    if next != drafts {
        let head = format!("blk.{}.nextn.shared_head_head.weight", delta_net::LAYERS);
        add_rows(builder, &head, drafts, OUTPUT_VALUE);
    }
    add_rows(builder, "output.weight", next, OUTPUT_VALUE);
}

/// Sets the matrices to zero through which layers add to the residual stream.
fn silence_layers(builder: &mut ModelBuilder) {
    for layer in 0..=delta_net::LAYERS {
        for part in ["attn_output", "ssm_out", "ffn_down"] {
            builder.writer.edit_tensor(&format!("blk.{layer}.{part}.weight"), |_, bytes| bytes.fill(0));
        }
    }
}

/// Makes the MTP block continue with the embedding alone: a unit matrix for the embedding, then zeros for the state.
fn project_the_embedding(builder: &mut ModelBuilder) {
    let shape = [2 * EMBEDDING_LENGTH, EMBEDDING_LENGTH];
    let values = (0..shape[0] * shape[1]).map(|place| {
        let (row, column) = (place / shape[0], place % shape[0]);
        if row == column { 1.0 } else { 0.0 }
    });
    let name = format!("blk.{}.nextn.eh_proj.weight", delta_net::LAYERS);
    builder.writer.replace_tensor(&name, Tensor::encoded(&shape, Format::F32, values));
}

/// The signs of the embeddings of the tokens. A control token has the signs of an ordinary token.
fn random_signs(count: u32) -> Vec<Signs> {
    let mut noise = Noise::new(11);
    (0..count).map(|_| std::array::from_fn(|_| noise.next())).collect()
}

/// The rows of the matrix whose largest product with the embedding of a token is at the token's `successor`. Control
/// tokens have no row.
fn output_rows(
    signs: &[Signs],
    tokens: std::ops::Range<u32>,
    successor: impl Fn(u32) -> u32,
) -> Vec<Option<Signs>> {
    let mut rows = vec![None; tokens.len()];
    for token in tokens {
        rows[successor(token) as usize] = Some(signs[token_cycle::index(token)]);
    }
    rows
}

/// Adds a matrix of one row per token. A row without signs is zero.
fn add_rows(builder: &mut ModelBuilder, name: &str, rows: Vec<Option<Signs>>, value: f32) {
    let shape = [EMBEDDING_LENGTH, rows.len() as u64];
    let values = rows.into_iter().flat_map(|row| {
        (0..EMBEDDING_LENGTH as usize).map(move |place| match row {
            None => 0.0,
            Some(signs) if signs[place / 64] >> (place % 64) & 1 == 1 => value,
            Some(_) => -value,
        })
    });
    builder.writer.add_tensor(name.to_owned(), Tensor::encoded(&shape, Format::Q8, values));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_token_wins_by_more_than_half_of_its_logit() {
        let signs = random_signs(49_152);
        for token in (0..signs.len()).step_by(500) {
            let product = |other: &Signs| {
                let differences: u32 =
                    signs[token].iter().zip(other).map(|(a, b)| (a ^ b).count_ones()).sum();
                EMBEDDING_LENGTH as i64 - 2 * i64::from(differences)
            };
            let others = signs.iter().enumerate().filter(|(other, _)| *other != token);
            let second = others.map(|(_, other)| product(other)).max().unwrap();
            assert!(second * 2 < EMBEDDING_LENGTH as i64, "{token}: {second}");
        }
    }
}
