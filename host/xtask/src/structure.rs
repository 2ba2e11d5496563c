//! The shape of our sources: room in each file, unsafe code in few crates, no import cycles.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::cycles::cycles;
use crate::shell::root;

/// Lines that a file may have.
const MAX_LINES: usize = 400;
/// The crates that may contain unsafe code.
const UNSAFE: [&str; 2] = ["host/engine/", "host/xtask/"];

/// Checks all of our sources, and says how many import cycles there are.
pub(crate) fn check() -> Result<()> {
    let mut faults = Vec::new();
    for folder in ["host", "plugins", "tests"] {
        for path in sources(&root().join(folder)) {
            faults.extend(file_faults(&shown(&path), &fs::read_to_string(&path)?));
        }
    }
    for folder in crates() {
        for cycle in cycles(&folder, &sources(&folder))? {
            let files: Vec<String> = cycle.iter().map(|file| shown(file)).collect();
            faults.push(format!("these files import each other: {}", files.join(", ")));
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

/// The source folders of all crates, the guests' among them.
fn crates() -> Vec<PathBuf> {
    let inside = |folder: &str| fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
    let all = ["host", "plugins", "plugins/fixtures"].into_iter().flat_map(inside);
    let mut found: Vec<PathBuf> =
        all.map(|entry| entry.path().join("src")).filter(|src| src.is_dir()).collect();
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn file_faults(shown: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.lines().count() > MAX_LINES {
        faults.push(format!("{shown}: more than {MAX_LINES} lines; one concept per file"));
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word))
            && !UNSAFE.iter().any(|place| shown.starts_with(place))
        {
            faults.push(format!("{shown}:{}: unsafe code lives in host/engine only", number + 1));
        }
    }
    faults
}

/// The Rust files below `folder`, without those that a build made.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules", "dist"].contains(&name.as_str()) {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_stray_unsafe_are_found() {
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(file_faults("host/engine/src/x.rs", &long).len(), 1);
        assert_eq!(file_faults("host/tightwad/src/x.rs", "unsafe { f() }").len(), 1);
        assert!(file_faults("host/engine/src/x.rs", "unsafe { f() }").is_empty());
    }
}
