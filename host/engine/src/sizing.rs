//! How many sequences a model runs at once, and how long they may be, where the configuration leaves it open.

use crate::config::EngineConfig;
use crate::memory::spare;
use crate::pool;
use crate::pool::shape::ModelShape;
use crate::weights::Weights;

/// Sequences at once, where memory allows.
const DEFAULT_SLOTS: u32 = 8;
/// Context that agents need. Fewer slots with this much are better than more with less.
const AMPLE_CONTEXT: u32 = 32 << 10;
/// Context of models that do not say what they were trained for.
const UNKNOWN_CONTEXT: u32 = 4096;
/// Shortest context that is chosen, however little memory there is.
const MIN_CONTEXT: u32 = 512;
/// llama.cpp rounds the context of a sequence up to a multiple of this.
const CONTEXT_STEP: u32 = 256;
/// Share of the spare memory that one model's caches take, in percent.
const CACHE_PERCENT: u64 = 75;
/// Bytes of scratch memory per token of context: the attention mask of a pass of 512 rows, in 32 and 16 bits.
const MASK_BYTES: u64 = 512 * 6;

/// The size of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizing {
    /// Tokens per sequence.
    pub context: u32,
    /// Sequences.
    pub slots: u32,
    /// Bytes of all caches when they are full.
    pub cache_bytes: u64,
}

/// What a cache takes, and what there is for it.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Tokens that the model was trained for; 0: unknown.
    trained: u32,
    /// Bytes of a token in the cache.
    token_bytes: u64,
    /// Bytes that caches may take; `None`: unknown.
    spare: Option<u64>,
}

impl Sizing {
    /// The sizing of `weights` under `config`. It warns where the configuration asks for more than there is.
    pub(crate) fn of(weights: &Weights, config: &EngineConfig) -> Self {
        let shape = ModelShape::read(weights.path()).ok();
        let layers = shape.iter().flat_map(|shape| &shape.layers);
        let room = Room {
            trained: weights.trained_context(),
            token_bytes: layers.map(|layer| layer.cache).sum(),
            spare: match pool::device() {
                Ok(device) if device.gpu && !config.takes_turns() => Some(device.free),
                _ => spare(weights.size()),
            },
        };
        let sizing = room.sizing(config.context, config.slots);
        let (_, caches) = weights.memory(sizing.cache_bytes);
        if let Some(spare) = room.spare.filter(|spare| caches > *spare) {
            tracing::warn!(
                cache_bytes = caches,
                spare_bytes = spare,
                "full sequences need more memory than there is: lower `context` or `slots`"
            );
        }
        sizing
    }
}

impl Room {
    /// `context`, `slots`: what was asked for; 0: as much as memory allows.
    fn sizing(&self, context: u32, slots: u32) -> Sizing {
        let trained = if self.trained == 0 { UNKNOWN_CONTEXT } else { self.trained };
        let slots = match (context, slots) {
            (0, 0) => self.slots_for(trained.min(AMPLE_CONTEXT)),
            (context, 0) => self.slots_for(context),
            (_, slots) => slots,
        };
        let context = if context == 0 { trained.min(self.most(slots)) } else { context };
        let tokens = u64::from(context.next_multiple_of(CONTEXT_STEP)) * u64::from(slots);
        Sizing { context, slots, cache_bytes: tokens.saturating_mul(self.token_bytes) }
    }

    /// As many slots, up to the default, as have room for `context` tokens each.
    fn slots_for(&self, context: u32) -> u32 {
        let halves = std::iter::successors(Some(DEFAULT_SLOTS), |slots| Some(slots / 2));
        halves.take_while(|slots| *slots > 1).find(|slots| self.most(*slots) >= context).unwrap_or(1)
    }

    /// Longest context of each of `slots` sequences that memory allows.
    fn most(&self, slots: u32) -> u32 {
        let Some(spare) = self.spare else { return UNKNOWN_CONTEXT };
        let token = self.token_bytes * u64::from(slots) + MASK_BYTES;
        let most = u32::try_from(spare / 100 * CACHE_PERCENT / token).unwrap_or(u32::MAX);
        (most - most % CONTEXT_STEP).max(MIN_CONTEXT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn room(trained: u32, token_bytes: u64, spare: u64) -> Room {
        Room { trained, token_bytes, spare: Some(spare) }
    }

    fn chosen(room: Room, context: u32, slots: u32) -> (u32, u32) {
        let sizing = room.sizing(context, slots);
        (sizing.context, sizing.slots)
    }

    #[test]
    fn the_trained_length_is_taken_where_memory_allows() {
        assert_eq!(chosen(room(8192, 23_040, 20 * GIB), 0, 0), (8192, 8));
        assert_eq!(chosen(room(131_072, 131_072, 1024 * GIB), 0, 0), (131_072, 8));
        assert_eq!(chosen(room(0, 23_040, 20 * GIB), 0, 0), (4096, 8));
    }

    #[test]
    fn slots_make_room_for_a_context_that_agents_need() {
        // Llama 8B on a machine with 16 GiB.
        let (context, slots) = chosen(room(131_072, 131_072, 10 * GIB), 0, 0);
        assert_eq!(slots, 1);
        assert!((32_768..131_072).contains(&context), "{context}");
        let (context, slots) = chosen(room(131_072, 131_072, 40 * GIB), 0, 0);
        assert_eq!(slots, 4);
        assert!((32_768..131_072).contains(&context), "{context}");
    }

    #[test]
    fn what_is_given_is_kept_and_little_memory_still_gives_a_context() {
        let room = room(131_072, 131_072, GIB);
        assert_eq!(chosen(room, 16_384, 2), (16_384, 2));
        assert_eq!(chosen(room, 16_384, 0), (16_384, 1));
        assert_eq!(chosen(room, 1024, 0), (1024, 4));
        assert_eq!(chosen(room, 0, 16), (512, 16));
        assert_eq!(room.sizing(1000, 2).cache_bytes, 2 * 1024 * 131_072);
        let unknown = Room { spare: None, ..room };
        assert_eq!((chosen(unknown, 0, 0), chosen(unknown, 1024, 0)), ((4096, 1), (1024, 8)));
    }
}
