//! Chooses the number of slots and the context length if the configuration does not set them.

use crate::config::EngineConfig;
use crate::memory::available_for_caches;
use crate::pool;
use crate::pool::shape::POOL_SNAPSHOTS;
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
/// The maximum number of snapshots of a recurrent state. Each adds to the time of a pass.
const MAX_SNAPSHOTS: u64 = 8;
/// The percentage of the available memory that snapshots may take.
const MAX_SNAPSHOT_PERCENT: u64 = 15;
/// The maximum number of checkpoints per slot.
const MAX_CHECKPOINTS: u64 = 32;
/// The percentage of the available memory that checkpoints may take.
const MAX_CHECKPOINT_PERCENT: u64 = 10;
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
    /// Bytes of all caches when they are full, with everything that rollbacks need.
    pub cache_bytes: u64,
    /// The memory for rollbacks.
    pub rollback: RollbackMemory,
}

/// The memory for rollbacks of recurrent states; zero for other models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RollbackMemory {
    /// The number of snapshots of each sequence's state, beside the state.
    pub snapshots: u32,
    /// The maximum size of all checkpoints in bytes, in the memory of this machine.
    pub checkpoint_bytes: u64,
}

/// The memory that caches need, and the memory that is available for them.
#[derive(Debug, Clone, Copy)]
struct MemoryBudget {
    /// The trained context length in tokens; 0: unknown.
    trained_context: u32,
    /// Cache bytes per token.
    cache_bytes_per_token: u64,
    /// Bytes of the recurrent state of one sequence.
    state_bytes: u64,
    /// True if the workers of a pool hold the states.
    pooled: bool,
    /// Bytes available for caches; `None`: unknown.
    available_bytes: Option<u64>,
}

impl Sizing {
    /// The sizing of `weights` under `config`. Warns if the configured size exceeds the available memory.
    pub(crate) fn for_model(weights: &Weights, config: &EngineConfig) -> Self {
        let layers = || weights.shape().into_iter().flat_map(|shape| &shape.layers);
        let budget = MemoryBudget {
            trained_context: weights.trained_context(),
            cache_bytes_per_token: layers().map(|layer| layer.cache_bytes_per_token).sum(),
            state_bytes: layers().map(|layer| layer.state_bytes).sum(),
            pooled: weights.is_pooled(),
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
        let cache_bytes = tokens.saturating_mul(self.cache_bytes_per_token);
        let rollback = self.rollback(slots);
        let cache_bytes = cache_bytes.saturating_add(self.state_memory(slots, rollback));
        Sizing { context, slots, cache_bytes, rollback }
    }

    /// The memory for rollbacks of `slots` sequences.
    fn rollback(&self, slots: u32) -> RollbackMemory {
        let states = self.state_bytes.saturating_mul(u64::from(slots));
        if states == 0 {
            return RollbackMemory::default();
        }
        let available = self.available_bytes.unwrap_or(u64::MAX);
        let affordable = available / 100 * MAX_SNAPSHOT_PERCENT / states;
        let snapshots = if self.pooled { POOL_SNAPSHOTS } else { affordable.min(MAX_SNAPSHOTS) as u32 };
        let checkpoints =
            (available / 100 * MAX_CHECKPOINT_PERCENT).min(states.saturating_mul(MAX_CHECKPOINTS));
        RollbackMemory { snapshots, checkpoint_bytes: checkpoints }
    }

    /// Bytes of the recurrent states of `slots` sequences, with all that rollbacks need.
    fn state_memory(&self, slots: u32, rollback: RollbackMemory) -> u64 {
        let states = u64::from(slots) * (1 + u64::from(rollback.snapshots));
        self.state_bytes.saturating_mul(states).saturating_add(rollback.checkpoint_bytes)
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
        let states = self.state_memory(slots, self.rollback(slots));
        let bytes = (available / 100 * MAX_CACHE_PERCENT).saturating_sub(states);
        let tokens = u32::try_from(bytes / bytes_per_token).unwrap_or(u32::MAX);
        (tokens - tokens % CONTEXT_STEP).max(MIN_CONTEXT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn budget(trained_context: u32, cache_bytes_per_token: u64, available_bytes: u64) -> MemoryBudget {
        let available_bytes = Some(available_bytes);
        MemoryBudget {
            trained_context,
            cache_bytes_per_token,
            state_bytes: 0,
            pooled: false,
            available_bytes,
        }
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

    #[test]
    fn rollback_memory_depends_on_states_and_available_memory() {
        // Qwen3.5 4B: 24 layers with a state of 2 MiB each.
        let large = MemoryBudget { state_bytes: 48 << 20, ..budget(32_768, 32_768, 20 * GIB) };
        let sizing = large.choose(0, 4);
        assert_eq!(sizing.rollback.snapshots, 8);
        assert!((2 * GIB - GIB / 10..2 * GIB + GIB / 10).contains(&sizing.rollback.checkpoint_bytes));
        assert_eq!(
            sizing.cache_bytes,
            4 * 32_768 * 32_768 + (4 * 9 * (48 << 20)) + sizing.rollback.checkpoint_bytes
        );
        let small = MemoryBudget { available_bytes: Some(2 * GIB), ..large };
        assert_eq!(small.choose(0, 4).rollback.snapshots, 1);
        assert_eq!(small.choose(0, 8).rollback.snapshots, 0);
        let pooled = MemoryBudget { pooled: true, ..small };
        assert_eq!(pooled.choose(0, 8).rollback.snapshots, POOL_SNAPSHOTS);
        assert_eq!(budget(8192, 23_040, 20 * GIB).choose(0, 0).rollback, RollbackMemory::default());
    }
}
