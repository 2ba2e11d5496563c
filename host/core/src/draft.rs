//! Drafts: chains and trees of proposed tokens.
//!
//! Invariant: the paths lead from the root to the leaves, and no path is a prefix of another one. The target verifies
//! the first path when its batch has no room for all paths.

use std::collections::HashMap;

use crate::tokens::TokenId;

/// The proposed continuations of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    paths: Vec<Vec<TokenId>>,
}

/// The tree has a token before its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token {0} of the draft must come after its parent")]
pub struct InvalidTree(pub usize);

impl From<Vec<TokenId>> for Draft {
    /// A chain: each token follows the previous one.
    fn from(tokens: Vec<TokenId>) -> Self {
        Self { paths: if tokens.is_empty() { Vec::new() } else { vec![tokens] } }
    }
}

impl Draft {
    /// A tree: `parents[i]` is the index of the parent of `tokens[i]`; -1 marks a child of the root.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidTree`] with the index of the first token that has no earlier parent.
    pub fn from_tree(tokens: &[TokenId], parents: &[i32]) -> Result<Self, InvalidTree> {
        let mut leaf = vec![true; tokens.len()];
        for index in 0..tokens.len() {
            match parents.get(index).map(|parent| usize::try_from(*parent)) {
                Some(Ok(parent)) if parent < index => leaf[parent] = false,
                Some(Err(_)) => {}
                _ => return Err(InvalidTree(index)),
            }
        }
        let path = |leaf: usize| {
            let parent = |index: &usize| usize::try_from(parents[*index]).ok();
            let mut path: Vec<TokenId> =
                std::iter::successors(Some(leaf), parent).map(|index| tokens[index]).collect();
            path.reverse();
            path
        };
        Ok(Self::from_paths((0..tokens.len()).filter(|index| leaf[*index]).map(path)))
    }

    /// The tree of `paths`. Paths that are prefixes of other paths are dropped.
    #[must_use]
    pub fn from_paths(paths: impl IntoIterator<Item = Vec<TokenId>>) -> Self {
        let paths: Vec<Vec<TokenId>> = paths.into_iter().collect();
        let mut tree = PrefixTree::new();
        let ends: Vec<usize> = paths.iter().map(|path| tree.insert(path)).collect();
        let mut dropped = tree.is_inner;
        let is_kept = |(_, end): &(Vec<TokenId>, usize)| !std::mem::replace(&mut dropped[*end], true);
        Self { paths: paths.into_iter().zip(ends).filter(is_kept).map(|(path, _)| path).collect() }
    }

    /// The paths from the root to the leaves.
    #[must_use]
    pub fn paths(&self) -> &[Vec<TokenId>] {
        &self.paths
    }

    /// The number of tokens of the longest path.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.paths.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The number of proposed tokens. A token that several paths share counts once.
    #[must_use]
    pub fn node_count(&self) -> usize {
        if let [chain] = self.paths.as_slice() {
            return chain.len();
        }
        let mut tree = PrefixTree::new();
        for path in &self.paths {
            tree.insert(path);
        }
        tree.children.len()
    }

    /// True when the draft has no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The first path; empty if the draft has no token.
    #[must_use]
    pub fn first_path(&self) -> &[TokenId] {
        self.paths.first().map_or(&[], Vec::as_slice)
    }

    /// Cuts every path to `max_depth` tokens.
    pub fn truncate(&mut self, max_depth: usize) {
        if self.depth() > max_depth {
            let cut = |mut path: Vec<TokenId>| {
                path.truncate(max_depth);
                path
            };
            *self = Self::from_paths(std::mem::take(&mut self.paths).into_iter().map(cut));
        }
    }

    /// Cuts every path before the first token that a vocabulary of `vocabulary_size` tokens lacks.
    pub fn cut_at_unknown_tokens(&mut self, vocabulary_size: u32) {
        let known_prefix =
            |path: Vec<TokenId>| path.into_iter().take_while(|token| *token < vocabulary_size).collect();
        if self.paths.iter().flatten().any(|token| *token >= vocabulary_size) {
            *self = Self::from_paths(std::mem::take(&mut self.paths).into_iter().map(known_prefix));
        }
    }

    /// Drops paths from the end until the draft needs at most `max_rows` rows, or has one path. Each path needs
    /// `extra_rows_per_path` rows beside those of its tokens.
    pub fn limit_rows(&mut self, max_rows: usize, extra_rows_per_path: usize) {
        let rows =
            |paths: &[Vec<TokenId>]| paths.iter().map(|path| path.len() + extra_rows_per_path).sum::<usize>();
        while self.paths.len() > 1 && rows(&self.paths) > max_rows {
            self.paths.pop();
        }
    }

    /// Keeps only the first `max_paths` paths.
    pub fn limit_paths(&mut self, max_paths: usize) {
        self.paths.truncate(max_paths);
    }
}

/// The nodes of paths by parent and token. Building it takes time proportional to the number of tokens: another
/// machine can send a tree with hundreds of long paths.
struct PrefixTree {
    children: HashMap<(usize, TokenId), usize>,
    /// True for nodes with children. Node 0 is the root and counts as one, so that an empty path has no leaf.
    is_inner: Vec<bool>,
}

impl PrefixTree {
    fn new() -> Self {
        Self { children: HashMap::new(), is_inner: vec![true] }
    }

    /// Adds `path` and returns its last node.
    fn insert(&mut self, path: &[TokenId]) -> usize {
        let mut node = 0;
        for token in path {
            self.is_inner[node] = true;
            let next = self.is_inner.len();
            node = *self.children.entry((node, *token)).or_insert(next);
            if node == next {
                self.is_inner.push(false);
            }
        }
        node
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_has_one_path_per_leaf() {
        // 1 -> 2 -> 3, 1 -> 4, 5
        let draft = Draft::from_tree(&[1, 2, 3, 4, 5], &[-1, 0, 1, 0, -1]).unwrap();
        assert_eq!(draft.paths(), [vec![1, 2, 3], vec![1, 4], vec![5]]);
        assert_eq!(draft.depth(), 3);
        assert_eq!(Draft::from_tree(&[1, 2], &[1, -1]), Err(InvalidTree(0)));
        assert_eq!(Draft::from_tree(&[1, 2], &[-1]), Err(InvalidTree(1)));
    }

    #[test]
    fn prefixes_of_other_paths_are_dropped() {
        let mut draft = Draft::from_paths([vec![1], vec![1, 2, 3], vec![1, 2], vec![4, 5]]);
        assert_eq!(draft.paths(), [vec![1, 2, 3], vec![4, 5]]);
        draft.truncate(1);
        assert_eq!(draft.paths(), [vec![1], vec![4]]);
    }
    #[test]
    fn tree_with_many_long_paths_takes_linear_time() {
        // 512 leaves below a trunk of 4096 tokens: comparing all pairs of paths would take 500 million steps.
        let trunk: Vec<TokenId> = (0..4096).collect();
        let paths = (0..512).map(|leaf| [trunk.as_slice(), &[leaf]].concat());
        let draft = Draft::from_paths(paths);
        assert_eq!((draft.paths().len(), draft.node_count()), (512, 4096 + 512));
    }
}
