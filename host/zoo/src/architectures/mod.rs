//! Builds the models: the keys and tensors of each architecture.

mod attention;
mod builder;
mod constructed;
mod delta_net;
mod lfm2;
mod mtp;
mod rwkv7;
mod shared_expert;
mod state_space;

use self::builder::ModelBuilder;
use self::delta_net::DeltaNet;
use crate::gguf::{GgufFile, TokenizerSource};
use crate::kind::Kind;
use crate::token_cycle::TokenCycle;

/// Builds the model `kind`.
pub(crate) fn build(kind: Kind, source: &TokenizerSource) -> GgufFile {
    let vocabulary = source.vocabulary_size;
    let mut builder = ModelBuilder::new(kind, GgufFile::new(&kind.name(), kind.architecture(), source));
    builder.common_keys(kind, vocabulary);
    if !matches!(kind, Kind::Vocabulary(_) | Kind::Constructed { .. } | Kind::LargeConstructed { .. }) {
        builder.embeddings(kind, vocabulary);
    }
    match kind {
        Kind::Llama | Kind::PaddedVocabulary => attention::llama(&mut builder),
        Kind::Qwen3Moe | Kind::Qwen3MoeF16 => attention::qwen3moe(&mut builder, 16, 4, 128),
        Kind::PreTokenizer(pre) => {
            builder.writer.set_pre_tokenizer(pre);
            attention::qwen3moe(&mut builder, 4, 2, 64);
        }
        Kind::Vocabulary(pre) => builder.writer.set_pre_tokenizer(pre),
        Kind::GptOss => attention::gpt_oss(&mut builder, vocabulary),
        Kind::Gemma3 => attention::gemma3(&mut builder),
        Kind::Lfm2 => lfm2::lfm2(&mut builder),
        Kind::Qwen35 => delta_net::qwen35(&mut builder, DeltaNet::SMALL),
        Kind::Mamba2 => state_space::mamba2(&mut builder),
        Kind::GraniteHybrid => state_space::granite_hybrid(&mut builder),
        Kind::NemotronHMoe => state_space::nemotron_h_moe(&mut builder),
        Kind::DeepSeek2 => shared_expert::deepseek2(&mut builder),
        Kind::Glm4Moe => shared_expert::glm4moe(&mut builder),
        Kind::Qwen3Next => delta_net::qwen3next(&mut builder),
        Kind::FalconH1 => state_space::falcon_h1(&mut builder),
        Kind::Rwkv7 => rwkv7::rwkv7(&mut builder, vocabulary),
        Kind::Qwen35Mtp => delta_net::qwen35_mtp(&mut builder, DeltaNet::SMALL),
        Kind::Constructed { damage_percent } => {
            let cycle = TokenCycle::new(vocabulary as u32, damage_percent);
            constructed::constructed(&mut builder, DeltaNet::SMALL, &cycle);
        }
        Kind::LargeConstructed { damage_percent } => {
            let cycle = TokenCycle::new(vocabulary as u32, damage_percent);
            constructed::constructed(&mut builder, DeltaNet::LARGE, &cycle);
        }
    }
    builder.writer
}
