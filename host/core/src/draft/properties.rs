use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Paths over few tokens, so that they share beginnings often.
fn paths() -> impl Strategy<Value = Vec<Vec<TokenId>>> {
    vec(vec(0..3_u32, 0..6), 0..8)
}

/// Tokens with parents that come before them.
fn tree() -> impl Strategy<Value = (Vec<TokenId>, Vec<i32>)> {
    vec((0..4_u32, any::<u16>()), 0..20).prop_map(|nodes| {
        let parent = |(index, (_, chance)): (usize, &(u32, u16))| i32::from(*chance) % (index as i32 + 1) - 1;
        let parents = nodes.iter().enumerate().map(parent).collect();
        (nodes.iter().map(|(token, _)| *token).collect(), parents)
    })
}

/// The different beginnings of all paths: the nodes of their tree.
fn beginnings(paths: &[Vec<TokenId>]) -> std::collections::BTreeSet<&[TokenId]> {
    paths.iter().flat_map(|path| (1..=path.len()).map(|length| &path[..length])).collect()
}

proptest! {
    #[test]
    fn no_path_is_empty_or_begins_another(paths in paths()) {
        let draft = Draft::of(paths);
        for (index, path) in draft.paths().iter().enumerate() {
            prop_assert!(!path.is_empty());
            for (other, longer) in draft.paths().iter().enumerate() {
                prop_assert!(index == other || !longer.starts_with(path));
            }
        }
    }

    #[test]
    fn a_draft_has_the_beginnings_of_its_paths_and_no_others(paths in paths()) {
        let draft = Draft::of(paths.clone());
        prop_assert_eq!(beginnings(draft.paths()), beginnings(&paths));
        prop_assert_eq!(draft.nodes(), beginnings(&paths).len());
        prop_assert_eq!(draft.depth(), paths.iter().map(Vec::len).max().unwrap_or(0));
    }

    #[test]
    fn a_tree_has_every_way_from_its_root((tokens, parents) in tree()) {
        let draft = Draft::tree(&tokens, &parents).unwrap();
        for start in 0..tokens.len() {
            let mut way = Vec::new();
            let mut at = i32::try_from(start).unwrap();
            while let Ok(index) = usize::try_from(at) {
                way.insert(0, tokens[index]);
                at = parents[index];
            }
            prop_assert!(draft.paths().iter().any(|path| path.starts_with(&way)), "{:?} is missing", way);
        }
    }

    #[test]
    fn a_truncated_draft_is_the_draft_of_truncated_paths(paths in paths(), most in 0..6_usize) {
        let mut draft = Draft::of(paths.clone());
        draft.truncate(most);
        prop_assert!(draft.depth() <= most);
        let cut: Vec<Vec<TokenId>> = paths.into_iter().map(|path| path[..path.len().min(most)].to_vec()).collect();
        prop_assert_eq!(beginnings(draft.paths()), beginnings(&cut));
    }
}
