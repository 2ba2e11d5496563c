//! What a backend can do.

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(u8);

impl Capabilities {
    /// Proposes tokens.
    pub const PROPOSE: Self = Self(1);
    /// Verifies proposals in one forward pass.
    pub const VERIFY: Self = Self(2);
    /// Answers whole requests.
    pub const GENERATE: Self = Self(4);
    /// Knows what to do with tools in a conversation.
    pub const TOOLS: Self = Self(8);
    /// Scores whole answers.
    pub const SCORE: Self = Self(16);
    /// Goes on behind tokens that it did not choose: in the middle of an answer, and from where another
    /// target was left.
    pub const RESUME: Self = Self(32);

    /// Of a model that llama.cpp runs, here or elsewhere. A recurrent state cannot be rolled back, so such a model
    /// neither verifies nor proposes.
    #[must_use]
    pub const fn of_model(tools: bool, recurrent: bool) -> Self {
        let mut all = Self::GENERATE.and(Self::SCORE).and(Self::RESUME);
        if !recurrent {
            all = all.and(Self::VERIFY).and(Self::PROPOSE);
        }
        if tools { all.and(Self::TOOLS) } else { all }
    }

    /// The union of two sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// True when every capability of `other` is in this set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
