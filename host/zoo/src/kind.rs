//! The kinds of models.

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
    /// State space layers with attention between them, and a mixture of experts in each layer.
    GraniteHybrid,
    /// Layers that are a state space, attention, or a mixture of experts.
    NemotronHMoe,
    /// A mixture of experts whose attention caches compressed keys and values (MLA).
    DeepSeek2,
    /// A mixture of experts with an MTP block.
    Glm4Moe,
    /// Gated delta nets in three of four layers, and a mixture of experts in each layer.
    Qwen3Next,
    /// A state space beside the attention of each layer.
    FalconH1,
    /// Linear attention with a state that decays per channel.
    Rwkv7,
    /// As [`Self::Qwen35`], with an MTP block.
    Qwen35Mtp,
    /// A model of the architecture of [`Self::Qwen35Mtp`] whose tokens are known: see [`crate::TokenCycle`].
    Constructed {
        /// The share of tokens after which the MTP block drafts a wrong token. Values above 100 count as 100.
        damage_percent: u8,
    },
    /// As [`Self::Constructed`], with the dimensions of Qwen3.5 0.8B, for measurements.
    LargeConstructed {
        /// As in [`Self::Constructed`].
        damage_percent: u8,
    },
    /// As [`Self::Llama`], with 128 unused tokens at the end of the vocabulary.
    PaddedVocabulary,
    /// A mixture of experts with the pre-tokenizer of this name.
    PreTokenizer(&'static str),
    /// A vocabulary without weights, with the pre-tokenizer of this name.
    Vocabulary(&'static str),
}

impl Kind {
    /// All architectures.
    pub const ARCHITECTURES: [Self; 16] = [
        Self::Llama,
        Self::Qwen3Moe,
        Self::Qwen3MoeF16,
        Self::GptOss,
        Self::Gemma3,
        Self::Lfm2,
        Self::Qwen35,
        Self::Mamba2,
        Self::GraniteHybrid,
        Self::NemotronHMoe,
        Self::DeepSeek2,
        Self::Glm4Moe,
        Self::Qwen3Next,
        Self::FalconH1,
        Self::Rwkv7,
        Self::Qwen35Mtp,
    ];
    /// Architectures whose state cannot be rolled back.
    pub const RECURRENT: [Self; 9] = [
        Self::Lfm2,
        Self::Qwen35,
        Self::Mamba2,
        Self::GraniteHybrid,
        Self::NemotronHMoe,
        Self::Qwen3Next,
        Self::FalconH1,
        Self::Rwkv7,
        Self::Qwen35Mtp,
    ];
    /// Architectures with an MTP block, which drafts tokens.
    pub const WITH_HEADS: [Self; 2] = [Self::Glm4Moe, Self::Qwen35Mtp];
    /// Pre-tokenizers that llama.cpp splits with recursive regular expressions.
    pub const PRE_TOKENIZERS: [Self; 3] =
        [Self::PreTokenizer("tekken"), Self::PreTokenizer("gpt-4o"), Self::PreTokenizer("deepseek-v3")];

    /// The name of the model's file, without revision and extension.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Qwen3MoeF16 => "qwen3moe-f16".to_owned(),
            Self::Qwen35Mtp => "qwen35-mtp".to_owned(),
            Self::PaddedVocabulary => "llama-padded".to_owned(),
            Self::Constructed { damage_percent } => format!("constructed-{damage_percent}"),
            Self::LargeConstructed { damage_percent } => format!("constructed-large-{damage_percent}"),
            Self::PreTokenizer(pre) => format!("pre-{pre}"),
            Self::Vocabulary(pre) => format!("vocabulary-{pre}"),
            _ => self.architecture().to_owned(),
        }
    }

    /// True if the model has only the first tokens of the tokenizer's vocabulary. Its passes are shorter, and it cannot
    /// draft for models with the complete vocabulary.
    pub(crate) fn has_small_vocabulary(self) -> bool {
        match self {
            Self::Constructed { .. } | Self::Vocabulary(_) => true,
            kind => Self::ARCHITECTURES.contains(&kind) && kind != Self::Llama,
        }
    }

    /// llama.cpp's name of the architecture.
    pub(crate) fn architecture(self) -> &'static str {
        match self {
            Self::Qwen3Moe | Self::Qwen3MoeF16 | Self::PreTokenizer(_) | Self::Vocabulary(_) => "qwen3moe",
            Self::Llama | Self::PaddedVocabulary => "llama",
            Self::GptOss => "gpt-oss",
            Self::Gemma3 => "gemma3",
            Self::Lfm2 => "lfm2",
            Self::Qwen35 | Self::Qwen35Mtp | Self::Constructed { .. } | Self::LargeConstructed { .. } => {
                "qwen35"
            }
            Self::Mamba2 => "mamba2",
            Self::GraniteHybrid => "granitehybrid",
            Self::NemotronHMoe => "nemotron_h_moe",
            Self::DeepSeek2 => "deepseek2",
            Self::Glm4Moe => "glm4moe",
            Self::Qwen3Next => "qwen3next",
            Self::FalconH1 => "falcon-h1",
            Self::Rwkv7 => "rwkv7",
        }
    }
}
