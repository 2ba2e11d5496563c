//! The levels of a trial.

use serde::{Deserialize, Serialize};

/// How much of a model a trial loads. A higher level includes the lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Level {
    /// The vocabulary.
    Vocabulary,
    /// Vocabulary and shapes of all tensors, and the graph of a pass, without weights.
    Structure,
    /// The complete model, with a forward pass.
    Pass,
}

impl Level {
    /// This level and the higher ones.
    pub(crate) fn and_above(self) -> impl Iterator<Item = Self> {
        let levels = [Self::Vocabulary, Self::Structure, Self::Pass];
        levels.into_iter().filter(move |level| *level as u8 >= self as u8)
    }
}
