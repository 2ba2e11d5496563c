//! Chooses the number of slots and the context length if the configuration does not set them.

use crate::config::EngineConfig;
use crate::memory::available_for_caches;
use crate::pool;
use crate::weights::Weights;

/// Number of slots, if memory allows.
const DEFAULT_SLOTS: u32 = 8;
/// Context length that agents need. Fewer slots with this context are better than more slots with less.
const PREFERRED_CONTEXT: u32 = 32 << 10;
/// Context length of models that do not state their trained context.
const DEFAULT_CONTEXT: u32 = 4096;
/// The minimum context length, even if memory does not suffice.
const MIN_CONTEXT: u32 = 512;
/// llama.cpp rounds the context length of a sequence up to a multiple of this number.
const CONTEXT_STEP: u32 = 256;
/// The percentage of the available memory that the caches of one model may take.
const MAX_CACHE_PERCENT: u64 = 75;
/// Bytes of temporary memory per token of context: the attention mask of a pass of 512 rows, in 32 and 16
/// bits.
const MASK_BYTES_PER_TOKEN: u64 = 512 * 6;

/// Context length, number of slots and size of the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizing {
    /// Context length of a sequence in tokens.
    pub context: u32,
    /// Number of slots.
    pub slots: u32,
    /// Bytes of all caches when they are full.
    pub cache_bytes: u64,
}

/// The memory that caches need, and the memory that is available for them.
#[derive(Debug, Clone, Copy)]
struct MemoryBudget {
    /// The trained context length in tokens; 0: unknown.
    trained_context: u32,
    /// Cache bytes per token.
    cache_bytes_per_token: u64,
    /// Bytes available for caches; `None`: unknown.
    available_bytes: Option<u64>,
}

impl Sizing {
    /// The sizing of `weights` under `config`. Warns if the configured size exceeds the available memory.
    pub(crate) fn for_model(weights: &Weights, config: &EngineConfig) -> Self {
        let layers = weights.shape().into_iter().flat_map(|shape| &shape.layers);
        let budget = MemoryBudget {
            trained_context: weights.trained_context(),
            cache_bytes_per_token: layers.map(|layer| layer.cache_bytes_per_token).sum(),
            available_bytes: match pool::device() {
                Ok(device) if device.is_gpu && !config.shares_cpu() => Some(device.free_bytes),
                _ => available_for_caches(weights.size_bytes()),
            },
        };
        let sizing = budget.choose(config.context, config.slots);
        let (_, cache_bytes) = weights.local_memory(sizing.cache_bytes);
        if let Some(available_bytes) = budget.available_bytes.filter(|available| cache_bytes > *available) {
            tracing::warn!(
                cache_bytes,
                available_bytes,
                "full sequences need more memory than is available. Lower `context` or `slots`"
            );
        }
        sizing
    }
}

impl MemoryBudget {
    /// Completes the configured `context` and `slots`. 0 means the default number, or less if memory does not
    /// suffice.
    fn choose(&self, context: u32, slots: u32) -> Sizing {
        let trained = if self.trained_context == 0 { DEFAULT_CONTEXT } else { self.trained_context };
        let slots = match (context, slots) {
            (0, 0) => self.slots_for(trained.min(PREFERRED_CONTEXT)),
            (context, 0) => self.slots_for(context),
            (_, slots) => slots,
        };
        let context = if context == 0 { trained.min(self.max_context(slots)) } else { context };
        let tokens = u64::from(context.next_multiple_of(CONTEXT_STEP)) * u64::from(slots);
        Sizing { context, slots, cache_bytes: tokens.saturating_mul(self.cache_bytes_per_token) }
    }

    /// The greatest number of slots, up to the default, with room for `context` tokens each.
    fn slots_for(&self, context: u32) -> u32 {
        let candidates = std::iter::successors(Some(DEFAULT_SLOTS), |slots| Some(slots / 2));
        candidates
            .take_while(|slots| *slots > 1)
            .find(|slots| self.max_context(*slots) >= context)
            .unwrap_or(1)
    }

    /// The greatest context length of each of `slots` sequences that memory allows.
    fn max_context(&self, slots: u32) -> u32 {
        let Some(available) = self.available_bytes else { return DEFAULT_CONTEXT };
        let bytes_per_token = self.cache_bytes_per_token * u64::from(slots) + MASK_BYTES_PER_TOKEN;
        let tokens = u32::try_from(available / 100 * MAX_CACHE_PERCENT / bytes_per_token).unwrap_or(u32::MAX);
        (tokens - tokens % CONTEXT_STEP).max(MIN_CONTEXT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn budget(trained_context: u32, cache_bytes_per_token: u64, available_bytes: u64) -> MemoryBudget {
        MemoryBudget { trained_context, cache_bytes_per_token, available_bytes: Some(available_bytes) }
    }

    fn choose(budget: MemoryBudget, context: u32, slots: u32) -> (u32, u32) {
        let sizing = budget.choose(context, slots);
        (sizing.context, sizing.slots)
    }

    #[test]
    fn trained_context_is_chosen_if_memory_suffices() {
        assert_eq!(choose(budget(8192, 23_040, 20 * GIB), 0, 0), (8192, 8));
        assert_eq!(choose(budget(131_072, 131_072, 1024 * GIB), 0, 0), (131_072, 8));
        assert_eq!(choose(budget(0, 23_040, 20 * GIB), 0, 0), (4096, 8));
    }

    #[test]
    fn slots_make_room_for_a_context_that_agents_need() {
        // Llama 8B on a machine with 16 GiB.
        let (context, slots) = choose(budget(131_072, 131_072, 10 * GIB), 0, 0);
        assert_eq!(slots, 1);
        assert!((32_768..131_072).contains(&context), "{context}");
        let (context, slots) = choose(budget(131_072, 131_072, 40 * GIB), 0, 0);
        assert_eq!(slots, 4);
        assert!((32_768..131_072).contains(&context), "{context}");
    }

    #[test]
    fn configured_sizes_apply_and_little_memory_gives_the_minimum_context() {
        let budget = budget(131_072, 131_072, GIB);
        assert_eq!(choose(budget, 16_384, 2), (16_384, 2));
        assert_eq!(choose(budget, 16_384, 0), (16_384, 1));
        assert_eq!(choose(budget, 1024, 0), (1024, 4));
        assert_eq!(choose(budget, 0, 16), (512, 16));
        assert_eq!(budget.choose(1000, 2).cache_bytes, 2 * 1024 * 131_072);
        let unknown = MemoryBudget { available_bytes: None, ..budget };
        assert_eq!((choose(unknown, 0, 0), choose(unknown, 1024, 0)), ((4096, 1), (1024, 8)));
    }
}
