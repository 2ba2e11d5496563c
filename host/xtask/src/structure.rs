//! Checks the structure of the sources: file sizes, unsafe code, import cycles.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::contract;
use crate::cycles::cycles;
use crate::shell::root;

/// Greatest number of lines of a file.
const MAX_LINES: usize = 400;
/// The crates that may contain unsafe code.
const UNSAFE_CRATES: [&str; 3] = ["host/chat/", "host/engine/", "host/xtask/"];

/// Checks all sources, and reports every import cycle.
pub(crate) fn check() -> Result<()> {
    let mut faults = Vec::new();
    for folder in ["host", "plugins", "tests"] {
        for path in sources(&root().join(folder)) {
            faults.extend(file_faults(&relative_path(&path), &fs::read_to_string(&path)?));
        }
    }
    for folder in source_folders() {
        for cycle in cycles(&folder, &sources(&folder))? {
            let files: Vec<String> = cycle.iter().map(|file| relative_path(file)).collect();
            faults.push(format!("these files import each other: {}", files.join(", ")));
        }
    }
    faults.extend(contract::violations(&root().join("wit"))?);
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

/// The source folders of all crates of the host and the guests.
fn source_folders() -> Vec<PathBuf> {
    let entries_of = |folder: &str| fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
    let entries = ["host", "plugins", "plugins/fixtures"].into_iter().flat_map(entries_of);
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path().join("src")).filter(|src| src.is_dir()).collect();
    folders.sort();
    folders
}

fn relative_path(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn file_faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.lines().count() > MAX_LINES {
        faults.push(format!("{path}: more than {MAX_LINES} lines; split it by concept"));
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word))
            && !UNSAFE_CRATES.iter().any(|folder| path.starts_with(folder))
        {
            faults.push(format!("{path}:{}: unsafe code belongs into host/engine or host/chat", number + 1));
        }
    }
    faults
}

/// The Rust files below `folder`, without build outputs.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules", "dist"].contains(&name.as_str()) {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_misplaced_unsafe_code_are_found() {
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(file_faults("host/engine/src/x.rs", &long).len(), 1);
        assert_eq!(file_faults("host/tightwad/src/x.rs", "unsafe { f() }").len(), 1);
        assert!(file_faults("host/engine/src/x.rs", "unsafe { f() }").is_empty());
    }
}
