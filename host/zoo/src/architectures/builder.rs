//! The layers that models of several architectures share.

use crate::gguf::GgufFile;
use crate::kind::Kind;
use crate::tensor::{Format, Noise, Tensor};

/// The number of activations per token between two layers of a small model.
pub(super) const EMBEDDING_LENGTH: u64 = 256;
/// The number of attention heads of queries.
pub(super) const HEADS: u64 = 8;
/// The number of attention heads of keys and values.
pub(super) const KV_HEADS: u64 = 2;
/// The number of activations per head.
pub(super) const HEAD_SIZE: u64 = 32;
/// The number of activations per token inside a feed-forward layer.
pub(super) const FEED_FORWARD_LENGTH: u64 = 512;
/// The number of layers.
pub(super) const LAYERS: u64 = 6;
/// The trained context length of the models in tokens.
const CONTEXT_TOKENS: u64 = 32 << 10;

/// The sizes of attention and feed-forward layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dimensions {
    pub embedding_length: u64,
    pub feed_forward_length: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_size: u64,
}

impl Dimensions {
    /// The dimensions of most models.
    const SMALL: Self = Self {
        embedding_length: EMBEDDING_LENGTH,
        feed_forward_length: FEED_FORWARD_LENGTH,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_size: HEAD_SIZE,
    };
    /// The dimensions of Qwen3.5 0.8B.
    const LARGE: Self =
        Self { embedding_length: 1024, feed_forward_length: 3584, heads: 8, kv_heads: 2, head_size: 256 };
}

/// Adds keys and tensors to a GGUF file.
pub(super) struct ModelBuilder {
    pub writer: GgufFile,
    pub dimensions: Dimensions,
    noise: Noise,
    /// The format of matrices.
    matrix_format: Format,
}

impl ModelBuilder {
    pub(super) fn new(kind: Kind, writer: GgufFile) -> Self {
        let matrix_format = if kind == Kind::Qwen3MoeF16 { Format::F16 } else { Format::Q8 };
        let large = matches!(kind, Kind::LargeConstructed { .. });
        let dimensions = if large { Dimensions::LARGE } else { Dimensions::SMALL };
        Self { writer, dimensions, noise: Noise::new(7), matrix_format }
    }

    /// Sets integer keys of the architecture.
    pub(super) fn set_keys(&mut self, values: &[(&str, u64)]) {
        for (key, value) in values {
            self.writer.set_u32(key, *value as u32);
        }
    }

    /// A random matrix, scaled so that activations keep their size.
    pub(super) fn matrix(&mut self, name: &str, shape: &[u64]) {
        self.random(name, shape, self.matrix_format, 1.6 / (shape[0] as f32).sqrt());
    }

    pub(super) fn random(&mut self, name: &str, shape: &[u64], format: Format, scale: f32) {
        let tensor = Tensor::random(shape, format, scale, &mut self.noise);
        self.writer.add_tensor(name.to_owned(), tensor);
    }

    pub(super) fn vector(&mut self, name: &str, size: u64, value: f32) {
        self.writer.add_tensor(name.to_owned(), Tensor::constant(&[size], value));
    }

    /// The norms of a layer.
    pub(super) fn norms(&mut self, layer: u64, names: &[&str]) {
        for name in names {
            self.vector(&format!("blk.{layer}.{name}.weight"), self.dimensions.embedding_length, 1.0);
        }
    }

    /// Keys that most architectures share.
    pub(super) fn common_keys(&mut self, kind: Kind, vocabulary: u64) {
        let attends = !matches!(kind, Kind::Mamba2 | Kind::Rwkv7);
        let Dimensions { embedding_length, feed_forward_length, heads, kv_heads, head_size } =
            self.dimensions;
        self.set_keys(&[
            ("context_length", CONTEXT_TOKENS),
            ("embedding_length", embedding_length),
            ("block_count", LAYERS),
            ("feed_forward_length", if attends { feed_forward_length } else { 0 }),
            ("attention.head_count", if attends { heads } else { 0 }),
            ("vocab_size", vocabulary),
        ]);
        self.writer.set_f32("attention.layer_norm_rms_epsilon", 1e-5);
        if attends {
            self.writer.set_f32("rope.freq_base", 10_000.0);
            self.set_keys(&[
                ("attention.head_count_kv", kv_heads),
                ("rope.dimension_count", HEAD_SIZE),
                ("attention.key_length", head_size),
                ("attention.value_length", head_size),
            ]);
        }
    }

    /// The embeddings of the tokens, and the norm behind the last layer.
    pub(super) fn embeddings(&mut self, kind: Kind, vocabulary: u64) {
        self.random("token_embd.weight", &[EMBEDDING_LENGTH, vocabulary], self.matrix_format, 1.0);
        let norm = if kind == Kind::Lfm2 { "token_embd_norm.weight" } else { "output_norm.weight" };
        self.vector(norm, EMBEDDING_LENGTH, 1.0);
    }

    /// Gives the layers of `attends` heads of keys and values, and other layers none.
    pub(super) fn attention_layers(&mut self, attends: impl Fn(u64) -> bool) {
        let heads: Vec<i32> =
            (0..LAYERS).map(|layer| if attends(layer) { KV_HEADS as i32 } else { 0 }).collect();
        self.writer.set_i32_list("attention.head_count_kv", &heads);
    }

    /// The attention of a layer. The query matrix has `query_factor` times the size of the queries. `norm` adds norms
    /// of queries and keys.
    pub(super) fn attention(&mut self, layer: u64, query_factor: u64, norm: bool) {
        let Dimensions { embedding_length, heads, kv_heads, head_size, .. } = self.dimensions;
        let name = |name: &str| format!("blk.{layer}.attn_{name}.weight");
        self.matrix(&name("q"), &[embedding_length, heads * head_size * query_factor]);
        self.matrix(&name("k"), &[embedding_length, kv_heads * head_size]);
        self.matrix(&name("v"), &[embedding_length, kv_heads * head_size]);
        self.matrix(&name("output"), &[heads * head_size, embedding_length]);
        if norm {
            self.vector(&name("q_norm"), head_size, 1.0);
            self.vector(&name("k_norm"), head_size, 1.0);
        }
    }

    pub(super) fn feed_forward(&mut self, layer: u64) {
        let Dimensions { embedding_length, feed_forward_length, .. } = self.dimensions;
        self.matrix(&format!("blk.{layer}.ffn_gate.weight"), &[embedding_length, feed_forward_length]);
        self.matrix(&format!("blk.{layer}.ffn_up.weight"), &[embedding_length, feed_forward_length]);
        self.matrix(&format!("blk.{layer}.ffn_down.weight"), &[feed_forward_length, embedding_length]);
    }

    pub(super) fn experts(&mut self, layer: u64, experts: u64, inner: u64, biased: bool) {
        self.router(layer, experts, biased);
        for part in ["gate", "up", "down"] {
            self.expert_matrices(layer, part, experts, inner);
            if biased {
                let size = expert_shape(part, inner)[1];
                let name = format!("blk.{layer}.ffn_{part}_exps.bias");
                self.random(&name, &[size, experts], Format::F32, 0.1);
            }
        }
    }

    /// The matrix that selects the experts of a token.
    pub(super) fn router(&mut self, layer: u64, experts: u64, biased: bool) {
        let router = format!("blk.{layer}.ffn_gate_inp");
        self.random(&format!("{router}.weight"), &[EMBEDDING_LENGTH, experts], Format::F32, 0.1);
        if biased {
            self.random(&format!("{router}.bias"), &[experts], Format::F32, 0.1);
        }
    }

    /// The bias that only affects the selection of experts.
    pub(super) fn selection_bias(&mut self, layer: u64, experts: u64) {
        self.random(&format!("blk.{layer}.exp_probs_b.bias"), &[experts], Format::F32, 0.1);
    }

    /// The matrix `part` ("gate", "up" or "down") of all experts of a layer.
    pub(super) fn expert_matrices(&mut self, layer: u64, part: &str, experts: u64, inner: u64) {
        let [input, output] = expert_shape(part, inner);
        self.matrix(&format!("blk.{layer}.ffn_{part}_exps.weight"), &[input, output, experts]);
    }

    /// The matrices `parts` of the expert that each token uses.
    pub(super) fn shared_expert(&mut self, layer: u64, parts: &[&str], inner: u64) {
        for part in parts {
            self.matrix(&format!("blk.{layer}.ffn_{part}_shexp.weight"), &expert_shape(part, inner));
        }
    }

    pub(super) fn expert_counts(&mut self, experts: u64, used: u64, inner: u64) {
        self.set_keys(&[
            ("expert_count", experts),
            ("expert_used_count", used),
            ("expert_feed_forward_length", inner),
        ]);
    }
}

/// The shape of the matrix `part` of an expert with `inner` activations.
fn expert_shape(part: &str, inner: u64) -> [u64; 2] {
    if part == "down" { [inner, EMBEDDING_LENGTH] } else { [EMBEDDING_LENGTH, inner] }
}
