//! The word check: names, comments, documents and messages avoid the patterns of [`RULES`].
//! Text in quotation marks or backticks is a quotation; the check skips it in comments and in documents.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use regex::Regex;

use crate::shell::{listed_files, root};

/// The extensions of the checked files.
const EXTENSIONS: [&str; 12] = ["rs", "md", "wit", "lua", "toml", "py", "js", "ts", "c", "h", "sh", "cmake"];
/// This file is not checked, because it contains the patterns.
const EXCLUDED_FILE: &str = "host/xtask/src/words.rs";

/// The part of a line that a rule searches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The line without the quotations in its comment, or in a document.
    WithoutQuotations,
    /// The whole line.
    WholeLine,
}

/// A banned pattern.
struct Rule {
    scope: Scope,
    /// A regular expression. A match with a group `allowed` is not a fault.
    pattern: &'static str,
    /// The advice in the message.
    advice: &'static str,
}

const RULES: [Rule; 10] = [
    Rule {
        scope: Scope::WithoutQuotations,
        pattern: r"(?i-u)(?P<allowed>\bthere is no |\bis no longer\b)|\bis no ",
        advice: "write 'is not a' or 'has no'",
    },
    Rule {
        scope: Scope::WithoutQuotations,
        pattern: r"(?i-u)\b(?:is|are) had\b",
        advice: "write 'is complete'",
    },
    Rule { scope: Scope::WithoutQuotations, pattern: r"(?i-u)\bso many\b", advice: "write 'N'" },
    Rule { scope: Scope::WithoutQuotations, pattern: r"(?i-u)\bwhoever\b", advice: "name the party" },
    Rule {
        scope: Scope::WithoutQuotations,
        pattern: r"(?i-u)\bnobody's?\b",
        advice: "name the party, or write 'no request'",
    },
    Rule {
        scope: Scope::WithoutQuotations,
        pattern: r"(?i-u)\bin company\b",
        advice: "write 'shared' or 'co-batched'",
    },
    Rule { scope: Scope::WithoutQuotations, pattern: r"(?i-u)\bgo(?:es)? on\b", advice: "write 'continues'" },
    Rule { scope: Scope::WithoutQuotations, pattern: r"(?i-u)\bto be had\b", advice: "write 'available'" },
    Rule {
        scope: Scope::WholeLine,
        pattern: r"(?-u)_a_(?:second|peer|row|token|client|request)|--[a-z-]+-a-(?:second|peer|row|token|client|request)\b",
        advice: "write 'per'",
    },
    Rule {
        scope: Scope::WholeLine,
        pattern: r"(?-u)\b(?:const|static) (?:LONGEST|MOST|LEAST|PATIENCE|PAUSE|KNOWN|AGAIN)",
        advice: "name the thing and its unit, as in MAX_FRAME_BYTES",
    },
];

/// Checks all files that git tracks or does not ignore.
pub(crate) fn check() -> Result<()> {
    let rules = compiled()?;
    let mut faults = Vec::new();
    for file in listed_files()?.iter().filter(|file| is_checked(file)) {
        let Ok(text) = fs::read_to_string(root().join(file)) else { continue };
        faults.extend(file_faults(file, &text, &rules));
    }
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

fn compiled() -> Result<Vec<(Regex, &'static Rule)>> {
    RULES
        .iter()
        .map(|rule| {
            let pattern = Regex::new(rule.pattern).with_context(|| format!("pattern {}", rule.pattern))?;
            Ok((pattern, rule))
        })
        .collect()
}

fn is_checked(file: &str) -> bool {
    let extension = Path::new(file).extension().and_then(|extension| extension.to_str());
    file != EXCLUDED_FILE && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn file_faults(file: &str, text: &str, rules: &[(Regex, &'static Rule)]) -> Vec<String> {
    let is_document = Path::new(file).extension().is_some_and(|extension| extension == "md");
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let prose = if is_document { unquoted(line) } else { without_quoted_comment(line) };
        for (pattern, rule) in rules {
            let searched = if rule.scope == Scope::WithoutQuotations { prose.as_str() } else { line };
            let captures =
                pattern.captures_iter(searched).find(|captures| captures.name("allowed").is_none());
            if let Some(captures) = captures {
                let words = captures[0].trim();
                faults.push(format!("{file}:{}: '{words}': {}", number + 1, rule.advice));
            }
        }
    }
    faults
}

/// `line` with the quotations of its comment removed. String literals before the comment stay.
fn without_quoted_comment(line: &str) -> String {
    match line.find("//").or_else(|| line.find("-- ")).or_else(|| line.find("# ")) {
        Some(start) => format!("{}{}", &line[..start], unquoted(&line[start..])),
        None => line.to_owned(),
    }
}

/// `text` without the parts between quotation marks or backticks.
fn unquoted(text: &str) -> String {
    let mut prose = String::new();
    let mut quote = None;
    for letter in text.chars() {
        match quote {
            Some(end) if letter == end => quote = None,
            Some(_) => {}
            None => match letter {
                '"' | '`' => quote = Some(letter),
                '“' => quote = Some('”'),
                _ => prose.push(letter),
            },
        }
    }
    prose
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(file: &str, line: &str) -> usize {
        file_faults(file, line, &compiled().unwrap()).len()
    }

    #[test]
    fn banned_patterns_are_found() {
        for line in [
            "// A worker is no host.",
            "// The piece is had.",
            "/// Waits so many seconds.",
            "// Whoever asks, nobody's fault in company.",
            r#"bail!("the old one goes on")"#,
            "let bytes_a_second = 1;",
            "const LONGEST_LINE: usize = 1;",
        ] {
            assert!(faults("host/core/src/x.rs", line) > 0, "{line}");
        }
        assert!(faults("README.md", "`--sessions-a-client N`") > 0, "names count inside quotations, too");
    }

    #[test]
    fn plain_sentences_and_quotations_pass() {
        for line in [
            "// There is no peer.",
            "// A peer is no longer there.",
            r#"// "is no" is banned."#,
            "// A worker is not a host.",
            "const MAX_FRAME_BYTES: usize = 1;",
        ] {
            assert_eq!(faults("host/core/src/x.rs", line), 0, "{line}");
        }
        assert_eq!(faults("README.md", "Write `is not a`, never \"is no \"."), 0);
    }

    #[test]
    fn only_text_files_are_checked() {
        assert!(is_checked("wit/world.wit"));
        assert!(!is_checked("plugins/dist/swarm.wasm"));
        assert!(!is_checked("Cargo.lock"));
    }
}
