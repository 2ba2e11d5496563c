//! Sets of pieces, with one bit per piece: the intersection of two sets takes 64 pieces per step.

/// A set of numbers below a bound. Numbers from the bound on are in no set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    /// An empty set of numbers below `bound`.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { words: vec![0; bound.div_ceil(64)] }
    }

    /// Raises the bound.
    pub fn grow(&mut self, bound: usize) {
        self.words.resize(bound.div_ceil(64).max(self.words.len()), 0);
    }

    /// True if `item` is in the set.
    #[must_use]
    pub fn contains(&self, item: u32) -> bool {
        self.words.get(word(item)).is_some_and(|bits| bits & bit(item) != 0)
    }

    /// Inserts `item`. Returns true if it is new.
    pub fn insert(&mut self, item: u32) -> bool {
        let Some(bits) = self.words.get_mut(word(item)) else { return false };
        let new = *bits & bit(item) == 0;
        *bits |= bit(item);
        new
    }

    /// Removes `item`. Returns true if it was in the set.
    pub fn remove(&mut self, item: u32) -> bool {
        let Some(bits) = self.words.get_mut(word(item)) else { return false };
        let was = *bits & bit(item) != 0;
        *bits &= !bit(item);
        was
    }

    /// Removes all items.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// All items, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.intersection(self)
    }

    /// The items of both sets, in order.
    pub fn intersection(&self, other: &Self) -> impl Iterator<Item = u32> {
        self.words.iter().zip(&other.words).zip(0_u32..).flat_map(|((one, two), at)| {
            let mut bits = one & two;
            std::iter::from_fn(move || {
                let lowest = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(at * 64 + lowest)
            })
        })
    }

    /// True if the sets have a common item.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(one, two)| one & two != 0)
    }

    /// True if the set has no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|bits| *bits == 0)
    }

    /// The number of common items.
    #[must_use]
    pub fn intersection_len(&self, other: &Self) -> u32 {
        self.words.iter().zip(&other.words).map(|(one, two)| (one & two).count_ones()).sum()
    }

    /// The common item at index `n`.
    #[must_use]
    pub fn nth_common(&self, other: &Self, mut n: u32) -> Option<u32> {
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
    fn intersection_is_counted_and_found_by_index() {
        let (mut threes, mut fives) = (BitSet::new(200), BitSet::new(200));
        for item in 0..200 {
            assert!(item % 3 != 0 || threes.insert(item));
            assert!(item % 5 != 0 || fives.insert(item));
        }
        assert!(!threes.insert(3) && !threes.insert(900) && !threes.remove(1) && !threes.contains(900));
        let both: Vec<u32> = threes.intersection(&fives).collect();
        assert_eq!(both, (0..200).step_by(15).collect::<Vec<u32>>());
        assert_eq!(threes.intersection_len(&fives), both.len() as u32);
        for (n, item) in both.iter().enumerate() {
            assert_eq!(threes.nth_common(&fives, n as u32), Some(*item));
        }
        assert_eq!(threes.nth_common(&fives, both.len() as u32), None);
        assert_eq!(threes.iter().count(), 67);
        for item in both {
            assert!(threes.intersects(&fives) && fives.remove(item));
        }
        assert!(!threes.intersects(&fives));
    }
}
