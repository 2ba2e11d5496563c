//! Sets of pieces: a bit each, so that what two sets share is found 64 pieces at a time.

/// A set of numbers below a bound. What is beyond is in no set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    words: Vec<u64>,
}

impl Set {
    /// An empty set of numbers below `bound`.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { words: vec![0; bound.div_ceil(64)] }
    }

    /// Raises the bound.
    pub fn grow(&mut self, bound: usize) {
        self.words.resize(bound.div_ceil(64).max(self.words.len()), 0);
    }

    /// Whether `item` is in it.
    #[must_use]
    pub fn has(&self, item: u32) -> bool {
        self.words.get(word(item)).is_some_and(|bits| bits & bit(item) != 0)
    }

    /// Puts `item` into it; whether it was not there.
    pub fn insert(&mut self, item: u32) -> bool {
        let Some(bits) = self.words.get_mut(word(item)) else { return false };
        let new = *bits & bit(item) == 0;
        *bits |= bit(item);
        new
    }

    /// Takes `item` out of it; whether it was there.
    pub fn remove(&mut self, item: u32) -> bool {
        let Some(bits) = self.words.get_mut(word(item)) else { return false };
        let was = *bits & bit(item) != 0;
        *bits &= !bit(item);
        was
    }

    /// Takes everything out of it.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// All of it, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.shared(self)
    }

    /// What is in both, in order.
    pub fn shared(&self, other: &Self) -> impl Iterator<Item = u32> {
        self.words.iter().zip(&other.words).zip(0_u32..).flat_map(|((one, two), at)| {
            let mut bits = one & two;
            std::iter::from_fn(move || {
                let lowest = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(at * 64 + lowest)
            })
        })
    }

    /// Whether something is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(one, two)| one & two != 0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|bits| *bits == 0)
    }

    /// How many are in both.
    #[must_use]
    pub fn count_shared(&self, other: &Self) -> u32 {
        self.words.iter().zip(&other.words).map(|(one, two)| (one & two).count_ones()).sum()
    }

    /// Number `n` of what is in both, from 0.
    #[must_use]
    pub fn nth_shared(&self, other: &Self, mut n: u32) -> Option<u32> {
        for ((one, two), at) in self.words.iter().zip(&other.words).zip(0_u32..) {
            let mut bits = one & two;
            if bits.count_ones() <= n {
                n -= bits.count_ones();
                continue;
            }
            for _ in 0..n {
                bits &= bits - 1;
            }
            return Some(at * 64 + bits.trailing_zeros());
        }
        None
    }
}

fn word(item: u32) -> usize {
    item as usize / 64
}

fn bit(item: u32) -> u64 {
    1 << (item % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_counted_and_found_by_number() {
        let (mut threes, mut fives) = (Set::new(200), Set::new(200));
        for item in 0..200 {
            assert!(item % 3 != 0 || threes.insert(item));
            assert!(item % 5 != 0 || fives.insert(item));
        }
        assert!(!threes.insert(3) && !threes.insert(900) && !threes.remove(1) && !threes.has(900));
        let both: Vec<u32> = threes.shared(&fives).collect();
        assert_eq!(both, (0..200).step_by(15).collect::<Vec<u32>>());
        assert_eq!(threes.count_shared(&fives), both.len() as u32);
        for (n, item) in both.iter().enumerate() {
            assert_eq!(threes.nth_shared(&fives, n as u32), Some(*item));
        }
        assert_eq!(threes.nth_shared(&fives, both.len() as u32), None);
        assert_eq!(threes.iter().count(), 67);
        for item in both {
            assert!(threes.meets(&fives) && fives.remove(item));
        }
        assert!(!threes.meets(&fives));
    }
}
