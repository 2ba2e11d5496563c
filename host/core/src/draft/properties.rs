use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Paths over three tokens, so that they often share prefixes.
fn paths() -> impl Strategy<Value = Vec<Vec<TokenId>>> {
    vec(vec(0..3_u32, 0..6), 0..8)
}

/// Tokens with earlier parents.
fn tree() -> impl Strategy<Value = (Vec<TokenId>, Vec<i32>)> {
    vec((0..4_u32, any::<u16>()), 0..20).prop_map(|nodes| {
        let parent = |(index, (_, chance)): (usize, &(u32, u16))| i32::from(*chance) % (index as i32 + 1) - 1;
        let parents = nodes.iter().enumerate().map(parent).collect();
        (nodes.iter().map(|(token, _)| *token).collect(), parents)
    })
}

/// The distinct prefixes of all paths: the nodes of their tree.
fn prefixes(paths: &[Vec<TokenId>]) -> std::collections::BTreeSet<&[TokenId]> {
    paths.iter().flat_map(|path| (1..=path.len()).map(|length| &path[..length])).collect()
}

proptest! {
    #[test]
    fn paths_are_not_empty_and_not_prefixes_of_others(paths in paths()) {
        let draft = Draft::from_paths(paths);
        for (index, path) in draft.paths().iter().enumerate() {
            prop_assert!(!path.is_empty());
            for (other, longer) in draft.paths().iter().enumerate() {
                prop_assert!(index == other || !longer.starts_with(path));
            }
        }
    }

    #[test]
    fn draft_has_exactly_the_prefixes_of_its_paths(paths in paths()) {
        let draft = Draft::from_paths(paths.clone());
        prop_assert_eq!(prefixes(draft.paths()), prefixes(&paths));
        prop_assert_eq!(draft.node_count(), prefixes(&paths).len());
        prop_assert_eq!(draft.depth(), paths.iter().map(Vec::len).max().unwrap_or(0));
    }

    #[test]
    fn tree_has_every_path_from_its_root((tokens, parents) in tree()) {
        let draft = Draft::from_tree(&tokens, &parents).unwrap();
        for start in 0..tokens.len() {
            let mut expected = Vec::new();
            let mut node = i32::try_from(start).unwrap();
            while let Ok(index) = usize::try_from(node) {
                expected.insert(0, tokens[index]);
                node = parents[index];
            }
            prop_assert!(draft.paths().iter().any(|path| path.starts_with(&expected)), "{:?} is missing", expected);
        }
    }

    #[test]
    fn truncated_draft_has_the_truncated_paths(paths in paths(), max_depth in 0..6_usize) {
        let mut draft = Draft::from_paths(paths.clone());
        draft.truncate(max_depth);
        prop_assert!(draft.depth() <= max_depth);
        let cut: Vec<Vec<TokenId>> = paths.into_iter().map(|path| path[..path.len().min(max_depth)].to_vec()).collect();
        prop_assert_eq!(prefixes(draft.paths()), prefixes(&cut));
    }
}
