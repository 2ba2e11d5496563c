//! One direction of dependence between the host's folders, and room in each file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::shell::root;

/// From the bottom to the top: a folder uses only folders below it.
const ORDER: [&str; 7] = ["types", "backend", "plugin", "mode", "script", "server", "cli"];
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
    let own = shown.strip_prefix("host/tightwad/src/").and_then(|rest| rest.split('/').next());
    let level = own.and_then(|own| ORDER.iter().position(|folder| *folder == own));
    for (number, line) in text.lines().enumerate() {
        let at = format!("{shown}:{}", number + 1);
        let code = line.split("//").next().unwrap_or_default();
        if ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word))
            && !shown.starts_with("host/engine/")
            && !shown.starts_with("host/xtask/")
        {
            faults.push(format!("{at}: unsafe code lives in host/engine only"));
        }
        let Some(level) = level else { continue };
        for (other, folder) in ORDER.iter().enumerate().skip(level + 1) {
            if code.contains(&format!("crate::{folder}::")) {
                faults.push(format!(
                    "{at}: '{}' must not use '{}', which is above it",
                    ORDER[level], ORDER[other]
                ));
            }
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
    fn a_lower_folder_must_not_use_a_higher_one() {
        let text = "use crate::server::Routes;\nuse crate::types::Event; // crate::cli::x\n";
        let faults = file_faults("host/tightwad/src/mode/x.rs", text);
        assert_eq!(
            faults,
            ["host/tightwad/src/mode/x.rs:1: 'mode' must not use 'server', which is above it"]
        );
        assert!(file_faults("host/tightwad/src/cli/x.rs", text).is_empty());
    }

    #[test]
    fn long_files_and_stray_unsafe_are_found() {
        let long = "\n".repeat(LONGEST + 1);
        assert_eq!(file_faults("host/engine/src/x.rs", &long).len(), 1);
        assert_eq!(file_faults("host/tightwad/src/x.rs", "unsafe { f() }").len(), 1);
        assert!(file_faults("host/engine/src/x.rs", "unsafe { f() }").is_empty());
    }
}
