//! Compares the plugin contract with its released versions. `wit/README.md` has the version policy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use wit_component::{WitPrinter, semver_check};
use wit_parser::{PackageId, Resolve};

/// Major, minor and patch.
type Version = (u64, u64, u64);

/// The violations of the version policy in the folder `wit`, as messages.
///
/// # Errors
///
/// A folder that cannot be read or parsed.
pub(crate) fn violations(wit: &Path) -> Result<Vec<String>> {
    let current = Contract::read(wit)?;
    let mut violations = Vec::new();
    for folder in released_folders(wit)? {
        let copy = Contract::read(&folder)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let (new, old) = (version_text(current.version), version_text(copy.version));
        if name != old {
            violations.push(format!("wit/released/{name} has the version {old}. Rename the folder."));
        } else if copy.version > current.version {
            violations.push(format!(
                "wit has the version {new}, and {old} is released. Set a later version in world.wit."
            ));
        } else if copy.version == current.version {
            violations.extend(difference(&copy, &current)?.map(|line| {
                format!(
                    "wit differs from the released version {old}: `{line}`. Set a later version in world.wit."
                )
            }));
        } else if compatible_part(copy.version) == compatible_part(current.version) {
            violations.extend(incompatibilities(&folder, wit)?.into_iter().map(|reason| {
                format!(
                    "wit {new} is not compatible with {old}: {reason}. Set the next {} version in world.wit.",
                    incompatible_part(current.version)
                )
            }));
        }
    }
    Ok(violations)
}

/// A parsed package.
struct Contract {
    resolve: Resolve,
    package: PackageId,
    version: Version,
}

impl Contract {
    fn read(folder: &Path) -> Result<Self> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(folder)?;
        let Some(version) = &resolve.packages[package].name.version else {
            bail!("the package in {} has no version", folder.display());
        };
        let version = (version.major, version.minor, version.patch);
        Ok(Self { resolve, package, version })
    }

    /// The package as WIT text, without documentation.
    fn text(&self) -> Result<String> {
        let mut printer = WitPrinter::default();
        printer.emit_docs(false).print(&self.resolve, self.package, &[])?;
        Ok(printer.output.to_string())
    }
}

/// The folders of released versions, in order.
fn released_folders(wit: &Path) -> Result<Vec<PathBuf>> {
    let folder = wit.join("released");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut folders: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

/// The part of a version that compatible versions share.
fn compatible_part((major, minor, _): Version) -> (u64, u64) {
    (major, if major == 0 { minor } else { 0 })
}

/// The part of a version that an incompatible change raises.
fn incompatible_part((major, ..): Version) -> &'static str {
    if major == 0 { "minor" } else { "major" }
}

fn version_text((major, minor, patch): Version) -> String {
    format!("{major}.{minor}.{patch}")
}

/// The first line that differs between the two contracts, from `new` if it has that line. Documentation does not
/// count. `None`: the contracts are equal.
fn difference(old: &Contract, new: &Contract) -> Result<Option<String>> {
    let (old, new) = (old.text()?, new.text()?);
    if old == new {
        return Ok(None);
    }
    let changed_line = old.lines().zip(new.lines()).find(|(old, new)| old != new).map(|(_, new)| new);
    let extra_line = || {
        let shorter = old.lines().count().min(new.lines().count());
        old.lines().nth(shorter).or_else(|| new.lines().nth(shorter))
    };
    Ok(Some(changed_line.or_else(extra_line).unwrap_or_default().trim().to_owned()))
}

/// The reasons that components for the worlds in `old` do not work with the worlds in `new`.
fn incompatibilities(old: &Path, new: &Path) -> Result<Vec<String>> {
    let mut resolve = Resolve::default();
    let (old, _) = resolve.push_dir(old)?;
    let (new, _) = resolve.push_dir(new)?;
    let mut reasons = Vec::new();
    for (name, old_world) in &resolve.packages[old].worlds {
        match resolve.packages[new].worlds.get(name) {
            None => reasons.push(format!("the world `{name}` is missing")),
            Some(new_world) => {
                if let Err(error) = semver_check(resolve.clone(), *old_world, *new_world) {
                    reasons.push(format!("the world `{name}` changed ({:#})", error.root_cause()));
                }
            }
        }
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::shell::root;

    const BASE: &str = "
        interface host { record pair { one: u32, two: u32 } add: func(pair: pair) -> u32; }
        interface guest { run: func(); }
        world plugin { import host; export guest; }
    ";

    /// A folder `wit` with the current package and copies of released ones.
    fn wit(current: (&str, &str), copies: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |place: &Path, (version, text): (&str, &str)| {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join("world.wit"), format!("package a:b@{version};\n{text}")).unwrap();
        };
        write(folder.path(), current);
        for copy in copies {
            write(&folder.path().join("released").join(copy.0), *copy);
        }
        folder
    }

    /// The only violation; empty if there is none.
    fn violation(current: (&str, &str), copies: &[(&str, &str)]) -> String {
        let found = violations(wit(current, copies).path()).unwrap();
        assert!(found.len() < 2, "{found:?}");
        found.concat()
    }

    fn changed(from: &str, to: &str) -> String {
        assert!(BASE.contains(from), "{from}");
        BASE.replace(from, to)
    }

    #[test]
    fn contract_of_this_repository_follows_the_policy() {
        assert_eq!(violations(&root().join("wit")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn documentation_may_change_in_a_released_version() {
        let documented = changed("interface host {", "/// The host.\ninterface host {\n// A note.\n");
        assert_eq!(violation(("0.1.0", &documented), &[("0.1.0", BASE)]), "");
        assert_eq!(violation(("0.1.0", BASE), &[]), "");
    }

    #[test]
    fn change_of_a_released_version_is_reported() {
        for (from, to) in [
            ("two: u32", "two: u64"),
            ("two: u32 }", "two: u32, three: u32 }"),
            ("add: func", "stop: func(); add: func"),
            ("import host; ", ""),
            ("world plugin", "interface more {} world plugin"),
        ] {
            let found = violation(("0.1.0", &changed(from, to)), &[("0.1.0", BASE)]);
            assert!(found.starts_with("wit differs from the released version 0.1.0: `"), "{to}: {found}");
        }
    }

    #[test]
    fn patch_version_may_add_imports_and_worlds() {
        let function = changed("add: func", "stop: func(); add: func");
        let interface =
            changed("world plugin { ", "interface more { f: func(); } world plugin { import more; ");
        let world = format!("{BASE} world other {{ export guest; }}");
        for new in [function, interface, world] {
            assert_eq!(violation(("0.1.1", &new), &[("0.1.0", BASE)]), "", "{new}");
        }
    }

    #[test]
    fn incompatible_patch_version_is_reported() {
        for (from, to) in [
            ("two: u32", "two: u64"),
            ("two: u32 }", "two: u32, three: u32 }"),
            ("add: func(pair: pair) -> u32;", ""),
            ("run: func();", "run: func(); stop: func();"),
            ("run: func();", "run: func() -> u32;"),
        ] {
            let found = violation(("0.1.1", &changed(from, to)), &[("0.1.0", BASE)]);
            assert!(
                found.starts_with("wit 0.1.1 is not compatible with 0.1.0: the world `plugin` changed"),
                "{to}: {found}"
            );
            assert!(found.ends_with("Set the next minor version in world.wit."), "{found}");
        }
        let found = violation(("0.1.1", &changed("world plugin", "world renamed")), &[("0.1.0", BASE)]);
        assert!(found.contains("the world `plugin` is missing"), "{found}");
    }

    #[test]
    fn next_minor_version_may_change_everything() {
        let new = changed("two: u32", "two: u64");
        assert_eq!(violation(("0.2.0", &new), &[("0.1.0", BASE), ("0.1.1", BASE)]), "");
        // After 1.0.0, minor versions are compatible.
        assert!(!violation(("1.2.0", &new), &[("1.1.0", BASE)]).is_empty());
        assert_eq!(violation(("2.0.0", &new), &[("1.1.0", BASE)]), "");
    }

    #[test]
    fn wrong_versions_of_released_copies_are_reported() {
        let found = violation(("0.1.0", BASE), &[("0.1.1", BASE)]);
        assert!(found.contains("wit has the version 0.1.0, and 0.1.1 is released"), "{found}");
        let folder = wit(("0.1.0", BASE), &[("0.1.0", BASE)]);
        fs::rename(folder.path().join("released/0.1.0"), folder.path().join("released/latest")).unwrap();
        let found = violations(folder.path()).unwrap();
        assert_eq!(found, ["wit/released/latest has the version 0.1.0. Rename the folder."]);
    }
}
