//! Tests that need something, by the reason in their `#[ignore = "needs …"]`: they run where it is there.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use syn::visit::{self, Visit};
use syn::{Expr, ItemFn, Lit, Meta};

use crate::shell::{output, works};
use crate::structure::sources;

/// The reason of tests that only `--full` runs.
const LONG: &str = "takes many minutes";
/// The reason of tests that `--quick` leaves out.
const LARGE: &str = "needs the large models";

/// A reason, and whether what it names is there.
type Need = (&'static str, fn() -> bool);

/// What tests can need. Several reasons are separated by semicolons.
const NEEDS: [Need; 4] = [
    ("needs root and iproute2", has_namespaces),
    ("needs npm", || works("npm", "--version")),
    ("needs pip", || works("python3", "--version")),
    ("needs make", || works("make", "--version")),
];

/// A test and the reason why it is ignored unless asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ignored {
    pub name: String,
    pub reason: String,
}

impl Ignored {
    fn reasons(&self) -> impl Iterator<Item = &str> {
        self.reason.split("; ")
    }

    fn has(&self, wanted: &str) -> bool {
        self.reasons().any(|reason| reason == wanted)
    }
}

/// The ignored tests that cannot run here or are not wanted. With `CI` set, everything that the others need must be
/// there.
pub(crate) fn left_out(quick: bool, full: bool) -> Result<Vec<Ignored>> {
    let strict = std::env::var_os("CI").is_some();
    let mut left_out = Vec::new();
    for test in all()? {
        if (test.has(LONG) && !full) || (test.has(LARGE) && quick) {
            left_out.push(test);
            continue;
        }
        let mut runs = true;
        for reason in test.reasons().filter(|reason| ![LONG, LARGE].contains(reason)) {
            let need = NEEDS.iter().find(|(need, _)| *need == reason);
            let (_, is_there) = need.with_context(|| format!("{}: unknown reason '{reason}'", test.name))?;
            runs &= is_there();
        }
        if !runs && strict {
            bail!("the test {} {}: install it, or unset CI to leave the test out", test.name, test.reason);
        }
        if !runs {
            left_out.push(test);
        }
    }
    Ok(left_out)
}

fn has_namespaces() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0") && works("ip", "-V")
}

/// All ignored tests of the host.
fn all() -> Result<Vec<Ignored>> {
    let root = crate::shell::root();
    let files: Vec<PathBuf> = ["host", "tests"].iter().flat_map(|part| sources(&root.join(part))).collect();
    let mut found = Vec::new();
    for file in files {
        found.extend(ignored(&fs::read_to_string(&file)?));
    }
    Ok(found)
}

fn ignored(text: &str) -> Vec<Ignored> {
    struct Reader(Vec<Ignored>);
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
            self.0.extend(reasons.map(|reason| Ignored { name: name.clone(), reason }));
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
        let found: Vec<_> = ignored(text).into_iter().map(|one| (one.name, one.reason)).collect();
        let expected = [("b", "needs npm"), ("c", LONG)];
        assert_eq!(found, expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    }

    #[test]
    fn every_reason_of_our_tests_is_known() {
        let known =
            |reason: &str| [LONG, LARGE].contains(&reason) || NEEDS.iter().any(|(need, _)| *need == reason);
        let all = all().unwrap();
        assert!(!all.is_empty());
        assert_eq!(all.iter().find(|test| !test.reasons().all(known)), None);
    }
}
