//! A model that computes a [`TokenCycle`], so that tests know its tokens and the acceptance of its drafts.
//!
//! Each token has a random vector of signs as its embedding. The layers add nothing to it. The row of the output matrix
//! for the token `next(t)` is the embedding of `t`. The MTP block reads the embedding of the last token, ignores the
//! hidden state, and has the same output matrix or a damaged one.

use super::builder::ModelBuilder;
use super::delta_net::{self, DeltaNet};
use crate::tensor::{Format, Noise, Tensor};
use crate::token_cycle::{self, TokenCycle};

/// The logit of the next token. Other logits are near 0.
const NEXT_LOGIT: f32 = 64.0;

/// The signs of an embedding, one per bit.
type Signs = Vec<u64>;

pub(super) fn constructed(builder: &mut ModelBuilder, size: DeltaNet, cycle: &TokenCycle) {
    let embedding_length = builder.dimensions.embedding_length;
    let output_value = NEXT_LOGIT / embedding_length as f32;
    delta_net::qwen35_mtp(builder, size);
    silence_layers(builder, size.layers);
    project_the_embedding(builder, size.layers);
    builder.vector("output_norm.weight", embedding_length, 1.0);
    let signs = random_signs(cycle.vocabulary(), embedding_length);
    let tokens = 0..cycle.vocabulary();
    let embeddings = tokens.clone().map(|token| Some(&signs[token_cycle::index(token)]));
    add_rows(builder, "token_embd.weight", embeddings.collect(), 1.0);
    let next = output_rows(&signs, tokens.clone(), |token| cycle.next(token));
    let drafts = output_rows(&signs, tokens, |token| cycle.draft(token));
    if next != drafts {
        let head = format!("blk.{}.nextn.shared_head_head.weight", size.layers);
        add_rows(builder, &head, drafts, output_value);
    }
    add_rows(builder, "output.weight", next, output_value);
}

/// Sets the matrices to zero through which the layers up to `last` add to the residual stream.
fn silence_layers(builder: &mut ModelBuilder, last: u64) {
    for layer in 0..=last {
        for part in ["attn_output", "ssm_out", "ffn_down"] {
            builder.writer.edit_tensor(&format!("blk.{layer}.{part}.weight"), |_, bytes| bytes.fill(0));
        }
    }
}

/// Makes the MTP block `layer` continue with the embedding alone: a unit matrix for the embedding, then zeros for the state.
fn project_the_embedding(builder: &mut ModelBuilder, layer: u64) {
    let length = builder.dimensions.embedding_length;
    let shape = [2 * length, length];
    let values = (0..shape[0] * shape[1]).map(|place| {
        let (row, column) = (place / shape[0], place % shape[0]);
        if row == column { 1.0 } else { 0.0 }
    });
    let name = format!("blk.{layer}.nextn.eh_proj.weight");
    builder.writer.replace_tensor(&name, Tensor::encoded(&shape, Format::F32, values));
}

/// The signs of the embeddings of the tokens. A control token has the signs of an ordinary token.
fn random_signs(count: u32, embedding_length: u64) -> Vec<Signs> {
    let mut noise = Noise::new(11);
    (0..count).map(|_| (0..embedding_length / 64).map(|_| noise.next()).collect()).collect()
}

/// The rows of the matrix whose largest product with the embedding of a token is at the token's `successor`. Control
/// tokens have no row.
fn output_rows(
    signs: &[Signs],
    tokens: std::ops::Range<u32>,
    successor: impl Fn(u32) -> u32,
) -> Vec<Option<&Signs>> {
    let mut rows = vec![None; tokens.len()];
    for token in tokens {
        rows[successor(token) as usize] = Some(&signs[token_cycle::index(token)]);
    }
    rows
}

/// Adds a matrix of one row per token. A row without signs is zero.
fn add_rows(builder: &mut ModelBuilder, name: &str, rows: Vec<Option<&Signs>>, value: f32) {
    let length = builder.dimensions.embedding_length;
    let shape = [length, rows.len() as u64];
    let values = rows.into_iter().flat_map(|row| {
        (0..length as usize).map(move |place| match row {
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
    use crate::architectures::builder::EMBEDDING_LENGTH;

    #[test]
    fn best_token_wins_by_more_than_half_of_its_logit() {
        let signs = random_signs(49_152, EMBEDDING_LENGTH);
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
