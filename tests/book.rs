//! The book and the README: generated pages are current, and the commands in their `sh` blocks run.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support;

/// All Markdown files of the book, and the README.
fn documents() -> Vec<PathBuf> {
    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found = vec![support::repository_root().join("README.md")];
    below(&support::repository_root().join("host/book/src"), &mut found);
    found.sort();
    found
}

/// The blocks of `document` whose fence says `sh`, each with the number of its first line.
fn shell_blocks(document: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open = None;
    for (number, line) in document.lines().enumerate() {
        match (&mut open, line) {
            (None, "```sh") => open = Some((number + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), line) => text.push_str(&format!("{line}\n")),
            (None, _) => {}
        }
    }
    blocks
}

/// A folder that looks like the repository, in which commands may write.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["Cargo.toml", "examples", "host", "plugins", "scripts", "tests", "wit"] {
        symlink(support::repository_root().join(name), folder.path().join(name)).unwrap();
    }
    let models = support::smollm2();
    symlink(models.parent().unwrap(), folder.path().join("models")).unwrap();
    folder
}

#[test]
fn generated_pages_are_current() {
    for page in ["cli", "metrics"] {
        let output = support::tightwad(&["reference", page]);
        let wanted = String::from_utf8(output.stdout).unwrap();
        let file = support::repository_root().join(format!("host/book/src/reference/{page}.md"));
        assert!(fs::read_to_string(&file).unwrap() == wanted, "{page}.md is old: run `cargo xtask book`");
    }
}

#[test]
fn shell_blocks_run() {
    let binary = Path::new(env!("CARGO_BIN_EXE_tightwad"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut blocks_run = 0;
    for document in documents() {
        for (line, block) in shell_blocks(&fs::read_to_string(&document).unwrap()) {
            let folder = workplace();
            let mut shell = Command::new("bash");
            shell.args(["-euo", "pipefail", "-c", &block]).current_dir(folder.path()).env("PATH", &path);
            let output = support::set_environment(&mut shell).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}:{line}: {block}{errors}", document.display());
            blocks_run += 1;
        }
    }
    assert!(blocks_run > 0, "no document has a block of shell commands");
}
