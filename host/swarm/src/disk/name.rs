//! Model names that are safe file names on every system.

/// Greatest length of a name. Every file system accepts it with a suffix.
const MAX_NAME_BYTES: usize = 128;

/// Turns `requested` into a safe name: letters, digits, `-`, `_`, `+` and `.`, without a leading dot.
pub(crate) fn safe_name(requested: &str) -> String {
    let mut name = String::new();
    for c in requested.chars() {
        let c = if c.is_alphanumeric() || matches!(c, '_' | '+' | '.') { c } else { '-' };
        // One dash replaces a run of other characters.
        if !(c == '-' && name.ends_with('-')) {
            name.push(c);
        }
    }
    let ends = ['.', '-'];
    let name = name.trim_matches(ends);
    let name = name[..name.floor_char_boundary(MAX_NAME_BYTES)].trim_end_matches(ends);
    if name.is_empty() || is_reserved(name) { format!("model{name}") } else { name.to_owned() }
}

/// Whether Windows reserves the name for a device. Text after the first dot does not matter.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_uppercase();
    let numbered =
        |prefix| stem.strip_prefix(prefix).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit());
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_name_is_safe_and_idempotent() {
        for (requested, name) in [
            ("Qwen3 0.6B (Instruct)", "Qwen3-0.6B-Instruct"),
            ("../../etc/passwd", "etc-passwd"),
            ("..", "model"),
            ("", "model"),
            ("a\\b:c@d\0e\nf", "a-b-c-d-e-f"),
            ("con.gguf", "modelcon.gguf"),
            ("LPT1", "modelLPT1"),
            (".hidden", "hidden"),
            ("Größe", "Größe"),
        ] {
            assert_eq!(safe_name(requested), name, "{requested:?}");
        }
        for requested in
            ["x".repeat(1000), "ä.".repeat(500), "- .".repeat(99), format!("{}.con", "a".repeat(127))]
        {
            assert!(safe_name(&requested).len() <= MAX_NAME_BYTES);
            assert_eq!(safe_name(&safe_name(&requested)), safe_name(&requested));
        }
    }
}
