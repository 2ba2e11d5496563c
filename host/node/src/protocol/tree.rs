//! Drafts in calls: a list of tokens, with the index of each token's parent for a tree.

use std::collections::HashMap;

use tightwad_core::{Draft, InvalidTree, TokenId};

/// The maximum number of tokens of all paths of a tree, counted per path. A tree of 1024 tokens can have 512
/// paths of 512 tokens, which no batch holds.
const MAX_PATH_TOKENS: usize = 16 << 10;

/// The draft of a call is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidDraft {
    /// A parent does not come before its child.
    #[error(transparent)]
    Tree(#[from] InvalidTree),
    /// The lists have different lengths.
    #[error("the draft has {tokens} tokens and {parents} parents")]
    Lengths { tokens: usize, parents: usize },
    /// The paths are too long.
    #[error("the paths of the draft have {0} tokens together; a draft has at most {MAX_PATH_TOKENS}")]
    TooLarge(usize),
}

/// The tokens of `draft`, and their parents if the draft is not a chain.
pub(crate) fn flatten(draft: &Draft) -> (Vec<TokenId>, Vec<i32>) {
    if let [chain] = draft.paths() {
        return (chain.clone(), Vec::new());
    }
    let (mut tokens, mut parents, mut nodes) = (Vec::new(), Vec::new(), HashMap::new());
    for path in draft.paths() {
        let mut parent = -1;
        for token in path {
            parent = *nodes.entry((parent, *token)).or_insert_with(|| {
                tokens.push(*token);
                parents.push(parent);
                i32::try_from(tokens.len() - 1).unwrap_or(i32::MAX)
            });
        }
    }
    (tokens, parents)
}

/// The draft with these tokens and parents. Without parents, each token follows the previous one.
///
/// # Errors
///
/// [`InvalidDraft`] if a parent does not come before its child, or the paths are too long.
pub(crate) fn unflatten(tokens: &[TokenId], parents: &[i32]) -> Result<Draft, InvalidDraft> {
    if parents.is_empty() {
        return Ok(tokens.to_vec().into());
    }
    if parents.len() != tokens.len() {
        return Err(InvalidDraft::Lengths { tokens: tokens.len(), parents: parents.len() });
    }
    let (mut depths, mut is_leaf) = (vec![1_usize; tokens.len()], vec![true; tokens.len()]);
    for (index, parent) in parents.iter().enumerate() {
        match usize::try_from(*parent) {
            Ok(parent) if parent < index => {
                depths[index] = depths[parent] + 1;
                is_leaf[parent] = false;
            }
            Ok(_) => return Err(InvalidTree(index).into()),
            Err(_) => {}
        }
    }
    let path_tokens = depths.iter().zip(is_leaf).map(|(depth, leaf)| if leaf { *depth } else { 0 }).sum();
    if path_tokens > MAX_PATH_TOKENS {
        return Err(InvalidDraft::TooLarge(path_tokens));
    }
    Ok(Draft::from_tree(tokens, parents)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_round_trips() {
        let tree = Draft::from_paths([vec![1, 2, 3], vec![1, 4], vec![5, 2]]);
        let (tokens, parents) = flatten(&tree);
        assert_eq!(
            (tokens.as_slice(), parents.as_slice()),
            (&[1, 2, 3, 4, 5, 2][..], &[-1, 0, 1, 0, -1, 4][..])
        );
        assert_eq!(unflatten(&tokens, &parents).unwrap(), tree);
    }

    #[test]
    fn tree_with_too_many_path_tokens_is_refused() {
        // A trunk of 512 tokens with 512 leaves.
        let parents: Vec<i32> = (-1..511).chain([511; 512]).collect();
        let tokens: Vec<TokenId> = (0..1024).collect();
        assert_eq!(unflatten(&tokens, &parents), Err(InvalidDraft::TooLarge(512 * 513)));
    }

    #[test]
    fn invalid_parents_are_refused() {
        assert_eq!(unflatten(&[1, 2], &[1, -1]), Err(InvalidDraft::Tree(InvalidTree(0))));
        let lengths = InvalidDraft::Lengths { tokens: 1, parents: 2 };
        assert_eq!(unflatten(&[1], &[-1, 0]), Err(lengths));
    }
}
