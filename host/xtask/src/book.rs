//! The book and the README: links resolve, the summary lists every page, and generated pages are current.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use regex::Regex;

use crate::shell::{cargo, listed_files, output, root, run, target};
use crate::{lua_reference, tools};

const SOURCE: &str = "host/book/src";
const STUB: &str = "scripts/types/tightwad.lua";
const REFERENCE: &str = "host/book/src/reference";

/// Checks the links of all documents, the summary, and the Lua reference. The tests of `tightwad` compare the other
/// generated pages.
pub(crate) fn check() -> Result<()> {
    let files = listed_files()?;
    let is_document = |file: &&String| file.ends_with(".md");
    let documents: Vec<PathBuf> = files.iter().filter(is_document).map(PathBuf::from).collect();
    let mut faults = Vec::new();
    for document in &documents {
        faults.extend(broken_links(root(), document)?);
        if document.starts_with(SOURCE) {
            let text = fs::read_to_string(root().join(document))?;
            faults.extend(missing_paths(&document.display().to_string(), &text, &files)?);
        }
    }
    faults.extend(missing_in_summary(&documents)?);
    if fs::read_to_string(root().join(REFERENCE).join("lua.md")).unwrap_or_default() != lua_page()? {
        faults.push(format!("{REFERENCE}/lua.md differs from {STUB}: run `cargo xtask book`"));
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

/// Writes the generated pages.
pub(crate) fn write() -> Result<()> {
    let tools = tools::install()?;
    fs::create_dir_all(root().join(REFERENCE))?;
    fs::write(root().join(REFERENCE).join("lua.md"), lua_page()?)?;
    run(tools.for_command(cargo().args(["build", "--workspace"])))?;
    for page in ["cli", "metrics"] {
        let text = output(Command::new(target().join("debug/tightwad")).args(["reference", page]))?;
        fs::write(root().join(REFERENCE).join(format!("{page}.md")), format!("{text}\n"))?;
    }
    Ok(())
}

fn lua_page() -> Result<String> {
    let stub = fs::read_to_string(root().join(STUB)).with_context(|| format!("cannot read {STUB}"))?;
    lua_reference::page(&stub)
}

/// Reports each source path in a code span of `text` if no path in `files` ends with it.
fn missing_paths(document: &str, text: &str, files: &[String]) -> Result<Vec<String>> {
    let path = Regex::new(r"`([a-z0-9_.-]+(?:/[a-z0-9_.-]+)+\.(?:rs|wit|lua|toml))`")?;
    let exists = |path: &str| files.iter().any(|file| file == path || file.ends_with(&format!("/{path}")));
    let paths = path.captures_iter(text).map(|captures| captures[1].to_owned());
    Ok(paths.filter(|path| !exists(path)).map(|path| format!("{document}: no file '{path}'")).collect())
}

/// Reports each link of `document` whose file or heading does not exist. `document` is a path below `folder`.
fn broken_links(folder: &Path, document: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(folder.join(document))?;
    let link = Regex::new(r"\]\(([^) ]+)\)")?;
    let mut faults = Vec::new();
    let prose = without_code(&text);
    for captures in link.captures_iter(&prose) {
        let target = &captures[1];
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, heading) = target.split_once('#').unwrap_or((target, ""));
        let file = match path {
            "" => folder.join(document),
            path => folder.join(document).parent().context("a document lies in a folder")?.join(path),
        };
        if !file.exists() {
            faults.push(format!("{}: link to '{target}': no such file", document.display()));
        } else if !heading.is_empty() && !anchors(&fs::read_to_string(&file)?).contains(heading) {
            faults.push(format!("{}: link to '{target}': no such heading", document.display()));
        }
    }
    Ok(faults)
}

/// The lines of `text` outside fenced blocks.
fn unfenced_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// `text` without fenced blocks and code spans.
fn without_code(text: &str) -> String {
    let mut prose = String::new();
    for line in unfenced_lines(text) {
        prose.extend(line.split('`').step_by(2));
        prose.push('\n');
    }
    prose
}

/// The anchors of the headings of `text`, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = unfenced_lines(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let letters = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        letters.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(anchor).collect()
}

/// Reports each page of the book that `SUMMARY.md` does not list.
fn missing_in_summary(documents: &[PathBuf]) -> Result<Vec<String>> {
    let summary = fs::read_to_string(root().join(SOURCE).join("SUMMARY.md")).context("no SUMMARY.md")?;
    let pages = documents.iter().filter_map(|file| file.strip_prefix(SOURCE).ok());
    let missing = pages.filter(|page| {
        page.as_os_str() != "SUMMARY.md" && !summary.contains(&format!("]({})", page.display()))
    });
    Ok(missing.map(|page| format!("SUMMARY.md does not list {}", page.display())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_source_path_is_reported() {
        let files = ["host/core/src/lib.rs".to_owned()];
        let text = "`core/src/lib.rs`, `lib.rs`, `core/src/gone.rs`";
        assert_eq!(missing_paths("a.md", text, &files).unwrap(), ["a.md: no file 'core/src/gone.rs'"]);
    }

    #[test]
    fn broken_links_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.md"), "# One `heading`, here\n").unwrap();
        let text = "[a](b.md) [b](b.md#one-heading-here) [c](https://example.com) `[d](none.md)`\n\
                    ```\n[e](none.md)\n```\n[f](none.md) [g](b.md#two)\n";
        fs::write(folder.path().join("a.md"), text).unwrap();
        let faults = broken_links(folder.path(), Path::new("a.md")).unwrap();
        assert_eq!(
            faults,
            ["a.md: link to 'none.md': no such file", "a.md: link to 'b.md#two': no such heading"]
        );
    }
}
