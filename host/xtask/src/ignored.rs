//! Tests with `#[ignore = "needs …"]`. Such a test runs if this machine meets the needs in its reason.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use syn::visit::{self, Visit};
use syn::{Expr, ItemFn, Lit, Meta};

use crate::shell::{is_available, output};
use crate::structure::sources;

/// Reason of the tests that only `--full` runs.
const LONG_RUN: &str = "takes many minutes";
/// Reason of the tests that `--quick` leaves out.
const LARGE_MODELS: &str = "needs the large models";

/// A reason, and a function that checks whether this machine meets it.
type Need = (&'static str, fn() -> bool);

/// All known reasons. A test joins several reasons by semicolons.
const NEEDS: [Need; 4] = [
    ("needs root and iproute2", has_namespaces),
    ("needs npm", || is_available("npm", "--version")),
    ("needs pip", || is_available("python3", "--version")),
    ("needs make", || is_available("make", "--version")),
];

/// An ignored test with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IgnoredTest {
    pub name: String,
    pub reason: String,
}

impl IgnoredTest {
    fn reasons(&self) -> impl Iterator<Item = &str> {
        self.reason.split("; ")
    }

    fn has_reason(&self, wanted: &str) -> bool {
        self.reasons().any(|reason| reason == wanted)
    }
}

/// The ignored tests to skip: this machine cannot run them, or the user did not request them. With `CI` set, a missing
/// tool is an error.
pub(crate) fn skipped_tests(quick: bool, full: bool) -> Result<Vec<IgnoredTest>> {
    let strict = std::env::var_os("CI").is_some();
    let mut skipped = Vec::new();
    for test in ignored_tests()? {
        if (test.has_reason(LONG_RUN) && !full) || (test.has_reason(LARGE_MODELS) && quick) {
            skipped.push(test);
            continue;
        }
        let mut is_runnable = true;
        for reason in test.reasons().filter(|reason| ![LONG_RUN, LARGE_MODELS].contains(reason)) {
            let need = NEEDS.iter().find(|(need, _)| *need == reason);
            let (_, is_met) = need.with_context(|| format!("{}: unknown reason '{reason}'", test.name))?;
            is_runnable &= is_met();
        }
        if !is_runnable && strict {
            bail!(
                "the test {} {}. Install the tool, or unset CI to leave the test out.",
                test.name,
                test.reason
            );
        }
        if !is_runnable {
            skipped.push(test);
        }
    }
    Ok(skipped)
}

fn has_namespaces() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0") && is_available("ip", "-V")
}

/// All ignored tests of the repository.
fn ignored_tests() -> Result<Vec<IgnoredTest>> {
    let root = crate::shell::root();
    let files: Vec<PathBuf> = ["host", "tests"].iter().flat_map(|part| sources(&root.join(part))).collect();
    let mut tests = Vec::new();
    for file in files {
        tests.extend(ignored_tests_in(&fs::read_to_string(&file)?));
    }
    Ok(tests)
}

/// The ignored tests in the source `text`.
fn ignored_tests_in(text: &str) -> Vec<IgnoredTest> {
    struct Reader(Vec<IgnoredTest>);
    impl<'ast> Visit<'ast> for Reader {
        fn visit_item_fn(&mut self, function: &'ast ItemFn) {
            let reasons = function.attrs.iter().filter_map(|attribute| match &attribute.meta {
                Meta::NameValue(ignore) if ignore.path.is_ident("ignore") => match &ignore.value {
                    Expr::Lit(literal) => match &literal.lit {
                        Lit::Str(reason) => Some(reason.value()),
                        _ => None,
                    },
                    _ => None,
                },
                _ => None,
            });
            let name = function.sig.ident.to_string();
            self.0.extend(reasons.map(|reason| IgnoredTest { name: name.clone(), reason }));
            visit::visit_item_fn(self, function);
        }
    }
    let mut reader = Reader(Vec::new());
    if let Ok(file) = syn::parse_file(text) {
        reader.visit_file(&file);
    }
    reader.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_are_found_with_their_reasons() {
        let text = "#[test] fn a() {} #[test] #[ignore = \"needs npm\"] fn b() {}
            mod inner { #[tokio::test] #[ignore = \"takes many minutes\"] async fn c() {} }";
        let tests: Vec<_> = ignored_tests_in(text).into_iter().map(|test| (test.name, test.reason)).collect();
        let expected = [("b", "needs npm"), ("c", LONG_RUN)];
        assert_eq!(tests, expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    }

    #[test]
    fn every_reason_of_our_tests_is_known() {
        let known = |reason: &str| {
            [LONG_RUN, LARGE_MODELS].contains(&reason) || NEEDS.iter().any(|(need, _)| *need == reason)
        };
        let tests = ignored_tests().unwrap();
        assert!(!tests.is_empty());
        assert_eq!(tests.iter().find(|test| !test.reasons().all(known)), None);
    }
}
