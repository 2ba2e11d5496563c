//! The architectures.

use std::io;
use std::path::Path;

use crate::gguf::{Model, Source};
use crate::tensor::{Format, Noise, Tensor};

/// A model of the zoo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Dense, of the architecture that most models have: for tests where the text's meaning does not matter.
    Llama,
    /// A mixture of experts.
    Qwen3Moe,
    /// The same with weights of 16 bits.
    Qwen3MoeF16,
    /// Sinks, biases, a sliding window of 128 tokens.
    GptOss,
    /// A sliding window of 64 tokens.
    Gemma3,
    /// Short convolutions with attention between them.
    Lfm2,
    /// Gated delta net in three layers of four.
    Qwen35,
    /// State space layers only.
    Mamba2,
    /// A mixture of experts behind the pre-tokenizer of this name.
    PreTokenizer(&'static str),
    /// Only the vocabulary, behind the pre-tokenizer of this name.
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
    /// Architectures whose state cannot be cut.
    pub const RECURRENT: [Self; 3] = [Self::Lfm2, Self::Qwen35, Self::Mamba2];
    /// Pre-tokenizers that llama.cpp splits with recursive regular expressions.
    pub const PRE_TOKENIZERS: [Self; 3] =
        [Self::PreTokenizer("tekken"), Self::PreTokenizer("gpt-4o"), Self::PreTokenizer("deepseek-v3")];

    /// The name of its file.
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

/// Numbers of a token between two layers.
const WIDTH: u64 = 256;
/// Attention heads, those of keys and values, and numbers of a head.
const HEADS: u64 = 8;
const KV_HEADS: u64 = 2;
const HEAD: u64 = 32;
/// Numbers inside a feed-forward layer.
const INNER: u64 = 512;
/// Layers.
const LAYERS: u64 = 6;
/// Tokens that the model claims to be trained for.
const CONTEXT: u32 = 32 << 10;

/// Writes the model `kind` to `path`.
pub(crate) fn write(kind: Kind, source: &Source, path: &Path) -> io::Result<()> {
    let mut maker = Maker {
        model: Model::new(&kind.name(), kind.architecture(), source),
        noise: Noise::new(7),
        format: if kind == Kind::Qwen3MoeF16 { Format::F16 } else { Format::Q8 },
    };
    maker.common(kind, source.vocabulary);
    match kind {
        Kind::Llama => maker.llama(),
        Kind::Qwen3Moe | Kind::Qwen3MoeF16 => maker.qwen3moe(16, 4, 128),
        Kind::PreTokenizer(pre) => {
            maker.model.pre_tokenizer(pre);
            maker.qwen3moe(4, 2, 64);
        }
        Kind::Vocabulary(pre) => maker.model.pre_tokenizer(pre),
        Kind::GptOss => maker.gpt_oss(source.vocabulary),
        Kind::Gemma3 => maker.gemma3(),
        Kind::Lfm2 => maker.lfm2(),
        Kind::Qwen35 => maker.qwen35(),
        Kind::Mamba2 => maker.mamba2(),
    }
    maker.model.write(path)
}

struct Maker {
    model: Model,
    noise: Noise,
    /// Of matrices.
    format: Format,
}

impl Maker {
    /// A random matrix, scaled so that activations keep their size.
    fn matrix(&mut self, name: &str, shape: &[u64]) {
        self.random(name, shape, self.format, 1.6 / (shape[0] as f32).sqrt());
    }

    fn random(&mut self, name: &str, shape: &[u64], format: Format, scale: f32) {
        let tensor = Tensor::random(shape, format, scale, &mut self.noise);
        self.model.tensor(name.to_owned(), tensor);
    }

    fn vector(&mut self, name: &str, size: u64, value: f32) {
        self.model.tensor(name.to_owned(), Tensor::constant(&[size], value));
    }

    /// Norms of a layer.
    fn norms(&mut self, layer: u64, names: &[&str]) {
        for name in names {
            self.vector(&format!("blk.{layer}.{name}.weight"), WIDTH, 1.0);
        }
    }

    fn common(&mut self, kind: Kind, vocabulary: u64) {
        let attends = kind != Kind::Mamba2;
        for (key, value) in [
            ("context_length", CONTEXT),
            ("embedding_length", WIDTH as u32),
            ("block_count", LAYERS as u32),
            ("feed_forward_length", if attends { INNER as u32 } else { 0 }),
            ("attention.head_count", if attends { HEADS as u32 } else { 0 }),
            ("vocab_size", vocabulary as u32),
        ] {
            self.model.number(key, value);
        }
        self.model.real("attention.layer_norm_rms_epsilon", 1e-5);
        if attends {
            self.model.real("rope.freq_base", 10_000.0);
            self.model.number("attention.head_count_kv", KV_HEADS as u32);
            for key in ["rope.dimension_count", "attention.key_length", "attention.value_length"] {
                self.model.number(key, HEAD as u32);
            }
        }
        if matches!(kind, Kind::Vocabulary(_)) {
            return;
        }
        self.random("token_embd.weight", &[WIDTH, vocabulary], self.format, 1.0);
        let norm = if kind == Kind::Lfm2 { "token_embd_norm.weight" } else { "output_norm.weight" };
        self.vector(norm, WIDTH, 1.0);
    }

    /// `query`: how many times the size of the queries the first matrix has; `norm`: queries and keys have norms.
    fn attention(&mut self, layer: u64, query: u64, norm: bool) {
        let name = |name: &str| format!("blk.{layer}.attn_{name}.weight");
        self.matrix(&name("q"), &[WIDTH, HEADS * HEAD * query]);
        self.matrix(&name("k"), &[WIDTH, KV_HEADS * HEAD]);
        self.matrix(&name("v"), &[WIDTH, KV_HEADS * HEAD]);
        self.matrix(&name("output"), &[HEADS * HEAD, WIDTH]);
        if norm {
            self.vector(&name("q_norm"), HEAD, 1.0);
            self.vector(&name("k_norm"), HEAD, 1.0);
        }
    }

    fn feed_forward(&mut self, layer: u64) {
        self.matrix(&format!("blk.{layer}.ffn_gate.weight"), &[WIDTH, INNER]);
        self.matrix(&format!("blk.{layer}.ffn_up.weight"), &[WIDTH, INNER]);
        self.matrix(&format!("blk.{layer}.ffn_down.weight"), &[INNER, WIDTH]);
    }

    fn experts(&mut self, layer: u64, experts: u64, inner: u64, biased: bool) {
        let router = format!("blk.{layer}.ffn_gate_inp");
        self.random(&format!("{router}.weight"), &[WIDTH, experts], Format::F32, 0.1);
        if biased {
            self.random(&format!("{router}.bias"), &[experts], Format::F32, 0.1);
        }
        for (part, shape) in [("gate", [WIDTH, inner]), ("up", [WIDTH, inner]), ("down", [inner, WIDTH])] {
            let name = format!("blk.{layer}.ffn_{part}_exps");
            self.matrix(&format!("{name}.weight"), &[shape[0], shape[1], experts]);
            if biased {
                self.random(&format!("{name}.bias"), &[shape[1], experts], Format::F32, 0.1);
            }
        }
    }

    fn expert_counts(&mut self, experts: u64, used: u64, inner: u64) {
        self.model.number("expert_count", experts as u32);
        self.model.number("expert_used_count", used as u32);
        self.model.number("expert_feed_forward_length", inner as u32);
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
        self.model.number("attention.sliding_window", 128);
        self.matrix("output.weight", &[WIDTH, vocabulary]);
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm", "post_attention_norm"]);
            self.attention(layer, 1, false);
            self.experts(layer, 8, 128, true);
            self.random(&format!("blk.{layer}.attn_sinks.weight"), &[HEADS], Format::F32, 1.0);
            for (part, size) in
                [("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD), ("output", WIDTH)]
            {
                self.random(&format!("blk.{layer}.attn_{part}.bias"), &[size], Format::F32, 0.1);
            }
        }
    }

    fn gemma3(&mut self) {
        self.model.number("attention.sliding_window", 64);
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]);
            self.attention(layer, 1, true);
            self.feed_forward(layer);
        }
    }

    fn lfm2(&mut self) {
        self.model.number("shortconv.l_cache", 3);
        let attends = |layer: u64| layer % 3 == 2;
        let heads: Vec<i32> =
            (0..LAYERS).map(|layer| if attends(layer) { KV_HEADS as i32 } else { 0 }).collect();
        self.model.numbers("attention.head_count_kv", &heads);
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm", "ffn_norm"]);
            self.feed_forward(layer);
            if attends(layer) {
                self.attention(layer, 1, true);
                continue;
            }
            let name = |name: &str| format!("blk.{layer}.shortconv.{name}.weight");
            self.random(&name("conv"), &[3, WIDTH], Format::F32, 0.6);
            self.matrix(&name("in_proj"), &[WIDTH, 3 * WIDTH]);
            self.matrix(&name("out_proj"), &[WIDTH, WIDTH]);
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
            self.model.number(key, value as u32);
        }
        self.model.numbers("rope.dimension_sections", &[4, 4, 4, 4]);
        let (keys, values) = (state * groups, state * ranks);
        for layer in 0..layers {
            self.norms(layer, &["attn_norm", "post_attention_norm"]);
            self.feed_forward(layer);
            if layer % 4 == 3 {
                // Queries come with a gate of the same size.
                self.attention(layer, 2, true);
                continue;
            }
            let name = |name: &str| format!("blk.{layer}.{name}");
            self.matrix(&name("attn_qkv.weight"), &[WIDTH, 2 * keys + values]);
            self.matrix(&name("attn_gate.weight"), &[WIDTH, values]);
            self.random(&name("ssm_conv1d.weight"), &[4, 2 * keys + values], Format::F32, 0.5);
            self.random(&name("ssm_dt.bias"), &[ranks], Format::F32, 0.1);
            self.vector(&name("ssm_a"), ranks, -0.2);
            self.matrix(&name("ssm_beta.weight"), &[WIDTH, ranks]);
            self.matrix(&name("ssm_alpha.weight"), &[WIDTH, ranks]);
            self.vector(&name("ssm_norm.weight"), state, 1.0);
            self.matrix(&name("ssm_out.weight"), &[values, WIDTH]);
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
            self.model.number(key, value as u32);
        }
        let convolved = inner + 2 * groups * state;
        for layer in 0..LAYERS {
            self.norms(layer, &["attn_norm"]);
            let name = |name: &str| format!("blk.{layer}.ssm_{name}");
            self.matrix(&name("in.weight"), &[WIDTH, inner + convolved + ranks]);
            self.random(&name("conv1d.weight"), &[4, convolved], Format::F32, 0.5);
            self.random(&name("conv1d.bias"), &[convolved], Format::F32, 0.1);
            self.random(&name("dt.bias"), &[ranks], Format::F32, 0.1);
            for (part, value) in [("a", -1.0), ("d", 1.0)] {
                self.model.tensor(name(part), Tensor::constant(&[1, ranks], value));
            }
            self.model.tensor(name("norm.weight"), Tensor::constant(&[inner / groups, groups], 1.0));
            self.matrix(&name("out.weight"), &[inner, WIDTH]);
        }
    }
}
