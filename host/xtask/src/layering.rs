//! Room in each file, and unsafe code in few crates.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::shell::root;

/// Lines of a file.
const LONGEST: usize = 400;

/// Checks all of our source.
pub(crate) fn check() -> Result<()> {
    let mut faults = Vec::new();
    for folder in ["host", "plugins", "tests"] {
        for path in sources(&root().join(folder)) {
            let text = fs::read_to_string(&path)?;
            let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            faults.extend(file_faults(&shown, &text));
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

fn file_faults(shown: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.lines().count() > LONGEST {
        faults.push(format!("{shown}: more than {LONGEST} lines; one concept a file"));
    }
    for (number, line) in text.lines().enumerate() {
        let at = format!("{shown}:{}", number + 1);
        let code = line.split("//").next().unwrap_or_default();
        if ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word))
            && !shown.starts_with("host/engine/")
            && !shown.starts_with("host/xtask/")
        {
            faults.push(format!("{at}: unsafe code lives in host/engine only"));
        }
    }
    faults
}

fn sources(folder: &Path) -> Vec<PathBuf> {
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
        let long = "\n".repeat(LONGEST + 1);
        assert_eq!(file_faults("host/engine/src/x.rs", &long).len(), 1);
        assert_eq!(file_faults("host/tightwad/src/x.rs", "unsafe { f() }").len(), 1);
        assert!(file_faults("host/engine/src/x.rs", "unsafe { f() }").is_empty());
    }
}
