//! What a verification looks at: a list of proposed tokens, or a tree of them.
//!
//! Invariant: the paths are the ways from the root to the leaves, none of them begins another, and
//! the first is the one that is verified when there is no room for all.

use crate::tokens::TokenId;

/// Proposed continuations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    paths: Vec<Vec<TokenId>>,
}

/// A tree whose parents are not before their children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token {0} of the draft must come after its parent")]
pub struct InvalidTree(pub usize);

impl From<Vec<TokenId>> for Draft {
    /// A list: each token follows the one before it.
    fn from(tokens: Vec<TokenId>) -> Self {
        Self { paths: if tokens.is_empty() { Vec::new() } else { vec![tokens] } }
    }
}

impl Draft {
    /// A tree: `parents[i]` is the place of the token before `tokens[i]`; -1: it comes first.
    ///
    /// # Errors
    ///
    /// [`InvalidTree`] names the first token whose parent does not come before it.
    pub fn tree(tokens: &[TokenId], parents: &[i32]) -> Result<Self, InvalidTree> {
        let mut leaf = vec![true; tokens.len()];
        for index in 0..tokens.len() {
            match parents.get(index).map(|parent| usize::try_from(*parent)) {
                Some(Ok(parent)) if parent < index => leaf[parent] = false,
                Some(Err(_)) => {}
                _ => return Err(InvalidTree(index)),
            }
        }
        let path = |leaf: usize| {
            let before = |at: &usize| usize::try_from(parents[*at]).ok();
            let mut path: Vec<TokenId> =
                std::iter::successors(Some(leaf), before).map(|at| tokens[at]).collect();
            path.reverse();
            path
        };
        Ok(Self::of((0..tokens.len()).filter(|index| leaf[*index]).map(path)))
    }

    /// The tree of `paths`; those that begin another are left out.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = Vec<TokenId>>) -> Self {
        let mut kept: Vec<Vec<TokenId>> = Vec::new();
        for path in paths {
            if path.is_empty() || kept.iter().any(|other| other.starts_with(&path)) {
                continue;
            }
            kept.retain(|other| !path.starts_with(other));
            kept.push(path);
        }
        Self { paths: kept }
    }

    /// The ways from the root to the leaves.
    #[must_use]
    pub fn paths(&self) -> &[Vec<TokenId>] {
        &self.paths
    }

    /// Tokens of the longest path.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.paths.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Proposed tokens, those that paths share counted once.
    #[must_use]
    pub fn nodes(&self) -> usize {
        let common = |a: &[TokenId], b: &[TokenId]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let own = |(index, path): (usize, &Vec<TokenId>)| {
            path.len() - self.paths[..index].iter().map(|other| common(other, path)).max().unwrap_or(0)
        };
        self.paths.iter().enumerate().map(own).sum()
    }

    /// True when nothing is proposed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The first path.
    #[must_use]
    pub fn first(&self) -> &[TokenId] {
        self.paths.first().map_or(&[], Vec::as_slice)
    }

    /// Cuts every path to `most` tokens.
    pub fn truncate(&mut self, most: usize) {
        if self.depth() > most {
            let cut = |mut path: Vec<TokenId>| {
                path.truncate(most);
                path
            };
            *self = Self::of(std::mem::take(&mut self.paths).into_iter().map(cut));
        }
    }

    /// Cuts every path before the first number that is no token of a vocabulary of `size`.
    pub fn keep_known(&mut self, size: u32) {
        let known = |path: Vec<TokenId>| path.into_iter().take_while(|token| *token < size).collect();
        if self.paths.iter().flatten().any(|token| *token >= size) {
            *self = Self::of(std::mem::take(&mut self.paths).into_iter().map(known));
        }
    }

    /// Leaves out last paths until no more than `most` rows are left, `each` of them before every path,
    /// or one path.
    pub fn keep_rows(&mut self, most: usize, each: usize) {
        let rows = |paths: &[Vec<TokenId>]| paths.iter().map(|path| path.len() + each).sum::<usize>();
        while self.paths.len() > 1 && rows(&self.paths) > most {
            self.paths.pop();
        }
    }

    /// Leaves out all paths but the first `most`.
    pub fn keep_paths(&mut self, most: usize) {
        self.paths.truncate(most);
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_its_paths() {
        // 1 -> 2 -> 3, 1 -> 4, 5
        let draft = Draft::tree(&[1, 2, 3, 4, 5], &[-1, 0, 1, 0, -1]).unwrap();
        assert_eq!(draft.paths(), [vec![1, 2, 3], vec![1, 4], vec![5]]);
        assert_eq!(draft.depth(), 3);
        assert_eq!(Draft::tree(&[1, 2], &[1, -1]), Err(InvalidTree(0)));
        assert_eq!(Draft::tree(&[1, 2], &[-1]), Err(InvalidTree(1)));
    }

    #[test]
    fn what_begins_another_path_is_no_path() {
        let mut draft = Draft::of([vec![1], vec![1, 2, 3], vec![1, 2], vec![4, 5]]);
        assert_eq!(draft.paths(), [vec![1, 2, 3], vec![4, 5]]);
        draft.truncate(1);
        assert_eq!(draft.paths(), [vec![1], vec![4]]);
    }
}
