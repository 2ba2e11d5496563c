//! Runs every target over its committed corpus. A found fault becomes a file of the corpus, and so a test.

use std::fs;

use tightwad_fuzz::{TARGETS, corpus_dir};

#[test]
fn targets_hold_on_their_corpora() {
    for target in TARGETS {
        let folder = corpus_dir(target.name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let parsed = std::panic::catch_unwind(|| (target.run)(&bytes));
            assert!(parsed.is_ok(), "the target {} fails for {}", target.name, path.display());
            count += 1;
        }
        assert!(count >= 10, "the corpus of {} has only {count} files", target.name);
    }
}

#[test]
fn every_corpus_belongs_to_a_target() {
    let folders = fs::read_dir(corpus_dir("")).unwrap();
    let mut names: Vec<String> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, TARGETS.map(|target| target.name));
}
