//! The architectures of the models.

use crate::gguf::{GgufFile, TokenizerSource};
use crate::tensor::{Format, Noise, Tensor};

/// A model of the zoo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A dense model of the most common architecture, for tests that do not need meaningful text.
    Llama,
    /// A mixture of experts.
    Qwen3Moe,
    /// A mixture of experts with weights of 16 bits.
    Qwen3MoeF16,
    /// Attention sinks, biases, and a sliding window of 128 tokens.
    GptOss,
    /// A sliding window of 64 tokens.
    Gemma3,
    /// Short convolutions with attention between them.
    Lfm2,
    /// Gated delta nets in three of four layers.
    Qwen35,
    /// State space layers only.
    Mamba2,
    /// A mixture of experts with the pre-tokenizer of this name.
    PreTokenizer(&'static str),
    /// A vocabulary without weights, with the pre-tokenizer of this name.
    Vocabulary(&'static str),
}

impl Kind {
    /// All architectures.
    pub const ARCHITECTURES: [Self; 8] = [
        Self::Llama,
        Self::Qwen3Moe,
        Self::Qwen3MoeF16,
        Self::GptOss,
        Self::Gemma3,
        Self::Lfm2,
        Self::Qwen35,
        Self::Mamba2,
    ];
    /// Architectures whose state cannot be rolled back.
    pub const RECURRENT: [Self; 3] = [Self::Lfm2, Self::Qwen35, Self::Mamba2];
    /// Pre-tokenizers that llama.cpp splits with recursive regular expressions.
    pub const PRE_TOKENIZERS: [Self; 3] =
        [Self::PreTokenizer("tekken"), Self::PreTokenizer("gpt-4o"), Self::PreTokenizer("deepseek-v3")];

    /// The name of the model's file, without revision and extension.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Llama => "llama".to_owned(),
            Self::Qwen3Moe => "qwen3moe".to_owned(),
            Self::Qwen3MoeF16 => "qwen3moe-f16".to_owned(),
            Self::GptOss => "gpt-oss".to_owned(),
            Self::Gemma3 => "gemma3".to_owned(),
            Self::Lfm2 => "lfm2".to_owned(),
            Self::Qwen35 => "qwen35".to_owned(),
            Self::Mamba2 => "mamba2".to_owned(),
            Self::PreTokenizer(pre) => format!("pre-{pre}"),
            Self::Vocabulary(pre) => format!("vocabulary-{pre}"),
        }
    }

    fn architecture(self) -> &'static str {
        match self {
            Self::Qwen3Moe | Self::Qwen3MoeF16 | Self::PreTokenizer(_) | Self::Vocabulary(_) => "qwen3moe",
            Self::Llama => "llama",
            Self::GptOss => "gpt-oss",
            Self::Gemma3 => "gemma3",
            Self::Lfm2 => "lfm2",
            Self::Qwen35 => "qwen35",
            Self::Mamba2 => "mamba2",
        }
    }
}

/// The number of activations per token between two layers.
const EMBEDDING_LENGTH: u64 = 256;
/// The number of attention heads of queries.
const HEADS: u64 = 8;
/// The number of attention heads of keys and values.
const KV_HEADS: u64 = 2;
/// The number of activations per head.
const HEAD_SIZE: u64 = 32;
/// The number of activations per token inside a feed-forward layer.
const FEED_FORWARD_LENGTH: u64 = 512;
/// The number of layers.
const LAYERS: u64 = 6;
/// The trained context length of the models in tokens.
const CONTEXT_TOKENS: u32 = 32 << 10;

/// Builds the model `kind`.
pub(crate) fn build(kind: Kind, source: &TokenizerSource) -> GgufFile {
    let mut builder = ModelBuilder {
        writer: GgufFile::new(&kind.name(), kind.architecture(), source),
        noise: Noise::new(7),
        matrix_format: if kind == Kind::Qwen3MoeF16 { Format::F16 } else { Format::Q8 },
    };
    builder.common(kind, source.vocabulary_size);
    match kind {
        Kind::Llama => builder.llama(),
        Kind::Qwen3Moe | Kind::Qwen3MoeF16 => builder.qwen3moe(16, 4, 128),
        Kind::PreTokenizer(pre) => {
            builder.writer.set_pre_tokenizer(pre);
            builder.qwen3moe(4, 2, 64);
        }
        Kind::Vocabulary(pre) => builder.writer.set_pre_tokenizer(pre),
        Kind::GptOss => builder.gpt_oss(source.vocabulary_size),
        Kind::Gemma3 => builder.gemma3(),
        Kind::Lfm2 => builder.lfm2(),
        Kind::Qwen35 => builder.qwen35(),
        Kind::Mamba2 => builder.mamba2(),
    }
    builder.writer
}

/// Adds keys and tensors to a GGUF file.
struct ModelBuilder {
    writer: GgufFile,
    noise: Noise,
    /// The format of matrices.
    matrix_format: Format,
}

impl ModelBuilder {
    /// A random matrix, scaled so that activations keep their size.
    fn matrix(&mut self, name: &str, shape: &[u64]) {
        self.random(name, shape, self.matrix_format, 1.6 / (shape[0] as f32).sqrt());
    }

    fn random(&mut self, name: &str, shape: &[u64], format: Format, scale: f32) {
        let tensor = Tensor::random(shape, format, scale, &mut self.noise);
        self.writer.add_tensor(name.to_owned(), tensor);
    }

    fn vector(&mut self, name: &str, size: u64, value: f32) {
        self.writer.add_tensor(name.to_owned(), Tensor::constant(&[size], value));
    }

    /// The norms of a layer.
    fn norms(&mut self, layer: u64, names: &[&str]) {
        for name in names {
            self.vector(&format!("blk.{layer}.{name}.weight"), EMBEDDING_LENGTH, 1.0);
        }
    }

    /// Keys and tensors that most architectures share.
    fn common(&mut self, kind: Kind, vocabulary: u64) {
        let attends = kind != Kind::Mamba2;
        for (key, value) in [
            ("context_length", CONTEXT_TOKENS),
            ("embedding_length", EMBEDDING_LENGTH as u32),
            ("block_count", LAYERS as u32),
            ("feed_forward_length", if attends { FEED_FORWARD_LENGTH as u32 } else { 0 }),
            ("attention.head_count", if attends { HEADS as u32 } else { 0 }),
            ("vocab_size", vocabulary as u32),
        ] {
            self.writer.set_u32(key, value);
        }
        self.writer.set_f32("attention.layer_norm_rms_epsilon", 1e-5);
        if attends {
            self.writer.set_f32("rope.freq_base", 10_000.0);
            self.writer.set_u32("attention.head_count_kv", KV_HEADS as u32);
            for key in ["rope.dimension_count", "attention.key_length", "attention.value_length"] {
                self.writer.set_u32(key, HEAD_SIZE as u32);
            }
        }
        if matches!(kind, Kind::Vocabulary(_)) {
            return;
        }
        self.random("token_embd.weight", &[EMBEDDING_LENGTH, vocabulary], self.matrix_format, 1.0);
        let norm = if kind == Kind::Lfm2 { "token_embd_norm.weight" } else { "output_norm.weight" };
        self.vector(norm, EMBEDDING_LENGTH, 1.0);
    }

    /// The attention of a layer. The query matrix has `query_factor` times the size of the queries. `norm` adds norms
    /// of queries and keys.
    fn attention(&mut self, layer: u64, query_factor: u64, norm: bool) {
        let name = |name: &str| format!("blk.{layer}.attn_{name}.weight");
        self.matrix(&name("q"), &[EMBEDDING_LENGTH, HEADS * HEAD_SIZE * query_factor]);
        self.matrix(&name("k"), &[EMBEDDING_LENGTH, KV_HEADS * HEAD_SIZE]);
        self.matrix(&name("v"), &[EMBEDDING_LENGTH, KV_HEADS * HEAD_SIZE]);
        self.matrix(&name("output"), &[HEADS * HEAD_SIZE, EMBEDDING_LENGTH]);
        if norm {
            self.vector(&name("q_norm"), HEAD_SIZE, 1.0);
            self.vector(&name("k_norm"), HEAD_SIZE, 1.0);
        }
    }

    fn feed_forward(&mut self, layer: u64) {
        self.matrix(&format!("blk.{layer}.ffn_gate.weight"), &[EMBEDDING_LENGTH, FEED_FORWARD_LENGTH]);
        self.matrix(&format!("blk.{layer}.ffn_up.weight"), &[EMBEDDING_LENGTH, FEED_FORWARD_LENGTH]);
        self.matrix(&format!("blk.{layer}.ffn_down.weight"), &[FEED_FORWARD_LENGTH, EMBEDDING_LENGTH]);
    }

    fn experts(&mut self, layer: u64, experts: u64, inner: u64, biased: bool) {
        let router = format!("blk.{layer}.ffn_gate_inp");
        self.random(&format!("{router}.weight"), &[EMBEDDING_LENGTH, experts], Format::F32, 0.1);
        if biased {
            self.random(&format!("{router}.bias"), &[experts], Format::F32, 0.1);
        }
        for (part, shape) in [
            ("gate", [EMBEDDING_LENGTH, inner]),
            ("up", [EMBEDDING_LENGTH, inner]),
            ("down", [inner, EMBEDDING_LENGTH]),
        ] {
            let name = format!("blk.{layer}.ffn_{part}_exps");
            self.matrix(&format!("{name}.weight"), &[shape[0], shape[1], experts]);
            if biased {
                self.random(&format!("{name}.bias"), &[shape[1], experts], Format::F32, 0.1);
            }
        }
    }

    fn expert_counts(&mut self, experts: u64, used: u64, inner: u64) {
        self.writer.set_u32("expert_count", experts as u32);
        self.writer.set_u32("expert_used_count", used as u32);
        self.writer.set_u32("expert_feed_forward_length", inner as u32);
    }

    fn llama(&mut self) {
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm", "ffn_norm"]);
            self.attention(layer, 1, false);
            self.feed_forward(layer);
        }
    }

    fn qwen3moe(&mut self, experts: u64, used: u64, inner: u64) {
        self.expert_counts(experts, used, inner);
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm", "ffn_norm"]);
            self.attention(layer, 1, true);
            self.experts(layer, experts, inner, false);
        }
    }

    fn gpt_oss(&mut self, vocabulary: u64) {
        self.expert_counts(8, 4, 128);
        self.writer.set_u32("attention.sliding_window", 128);
        self.matrix("output.weight", &[EMBEDDING_LENGTH, vocabulary]);
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm", "post_attention_norm"]);
            self.attention(layer, 1, false);
            self.experts(layer, 8, 128, true);
            self.random(&format!("blk.{layer}.attn_sinks.weight"), &[HEADS], Format::F32, 1.0);
            for (part, size) in [
                ("q", HEADS * HEAD_SIZE),
                ("k", KV_HEADS * HEAD_SIZE),
                ("v", KV_HEADS * HEAD_SIZE),
                ("output", EMBEDDING_LENGTH),
            ] {
                self.random(&format!("blk.{layer}.attn_{part}.bias"), &[size], Format::F32, 0.1);
            }
        }
    }

    fn gemma3(&mut self) {
        self.writer.set_u32("attention.sliding_window", 64);
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]);
            self.attention(layer, 1, true);
            self.feed_forward(layer);
        }
    }

    fn lfm2(&mut self) {
        self.writer.set_u32("shortconv.l_cache", 3);
        let attends = |layer: u64| layer % 3 == 2;
        let heads: Vec<i32> =
            (0..LAYERS).map(|layer| if attends(layer) { KV_HEADS as i32 } else { 0 }).collect();
        self.writer.set_i32_list("attention.head_count_kv", &heads);
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm", "ffn_norm"]);
            self.feed_forward(layer);
            if attends(layer) {
                self.attention(layer, 1, true);
                continue;
            }
            let name = |name: &str| format!("blk.{layer}.shortconv.{name}.weight");
            self.random(&name("conv"), &[3, EMBEDDING_LENGTH], Format::F32, 0.6);
            self.matrix(&name("in_proj"), &[EMBEDDING_LENGTH, 3 * EMBEDDING_LENGTH]);
            self.matrix(&name("out_proj"), &[EMBEDDING_LENGTH, EMBEDDING_LENGTH]);
        }
    }

    fn qwen35(&mut self) {
        let (layers, state, groups, ranks) = (8, 32, 4, 8);
        for (key, value) in [
            ("block_count", layers),
            ("ssm.conv_kernel", 4),
            ("ssm.inner_size", state * ranks),
            ("ssm.state_size", state),
            ("ssm.time_step_rank", ranks),
            ("ssm.group_count", groups),
            ("full_attention_interval", 4),
        ] {
            self.writer.set_u32(key, value as u32);
        }
        self.writer.set_i32_list("rope.dimension_sections", &[4, 4, 4, 4]);
        let (keys, values) = (state * groups, state * ranks);
        for layer in 0..layers {
            self.norms(layer, &["attn_norm", "post_attention_norm"]);
            self.feed_forward(layer);
            if layer % 4 == 3 {
                // The query matrix also computes a gate of the same size.
                self.attention(layer, 2, true);
                continue;
            }
            let name = |name: &str| format!("blk.{layer}.{name}");
            self.matrix(&name("attn_qkv.weight"), &[EMBEDDING_LENGTH, 2 * keys + values]);
            self.matrix(&name("attn_gate.weight"), &[EMBEDDING_LENGTH, values]);
            self.random(&name("ssm_conv1d.weight"), &[4, 2 * keys + values], Format::F32, 0.5);
            self.random(&name("ssm_dt.bias"), &[ranks], Format::F32, 0.1);
            self.vector(&name("ssm_a"), ranks, -0.2);
            self.matrix(&name("ssm_beta.weight"), &[EMBEDDING_LENGTH, ranks]);
            self.matrix(&name("ssm_alpha.weight"), &[EMBEDDING_LENGTH, ranks]);
            self.vector(&name("ssm_norm.weight"), state, 1.0);
            self.matrix(&name("ssm_out.weight"), &[values, EMBEDDING_LENGTH]);
        }
    }

    fn mamba2(&mut self) {
        let (inner, state, groups, ranks) = (512, 64, 1, 8);
        for (key, value) in [
            ("ssm.conv_kernel", 4),
            ("ssm.inner_size", inner),
            ("ssm.state_size", state),
            ("ssm.time_step_rank", ranks),
            ("ssm.group_count", groups),
        ] {
            self.writer.set_u32(key, value as u32);
        }
        let convolved = inner + 2 * groups * state;
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm"]);
            let name = |name: &str| format!("blk.{layer}.ssm_{name}");
            self.matrix(&name("in.weight"), &[EMBEDDING_LENGTH, inner + convolved + ranks]);
            self.random(&name("conv1d.weight"), &[4, convolved], Format::F32, 0.5);
            self.random(&name("conv1d.bias"), &[convolved], Format::F32, 0.1);
            self.random(&name("dt.bias"), &[ranks], Format::F32, 0.1);
            for (part, value) in [("a", -1.0), ("d", 1.0)] {
                self.writer.add_tensor(name(part), Tensor::constant(&[1, ranks], value));
            }
            self.writer.add_tensor(name("norm.weight"), Tensor::constant(&[inner / groups, groups], 1.0));
            self.matrix(&name("out.weight"), &[inner, EMBEDDING_LENGTH]);
        }
    }
}
