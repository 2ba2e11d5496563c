//! Names that are safe as the name of a file, everywhere.

/// Longest name, in bytes: with a suffix behind it, every file system takes it.
const LONGEST: usize = 128;

/// `wish` as a safe name: letters, digits and `-`, `_`, `+`, `.`; nothing else, no dot in front.
pub(crate) fn safe(wish: &str) -> String {
    let mut name = String::new();
    for c in wish.chars() {
        let c = if c.is_alphanumeric() || matches!(c, '_' | '+' | '.') { c } else { '-' };
        // One dash for any number of strange characters.
        if !(c == '-' && name.ends_with('-')) {
            name.push(c);
        }
    }
    let ends = ['.', '-'];
    let name = name.trim_matches(ends);
    let name = name[..name.floor_char_boundary(LONGEST)].trim_end_matches(ends);
    if name.is_empty() || is_device(name) { format!("model{name}") } else { name.to_owned() }
}

/// Names that Windows keeps for devices, whatever is behind the dot.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_uppercase();
    let numbered =
        |prefix| stem.strip_prefix(prefix).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit());
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_stay_so() {
        for (wish, name) in [
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
            assert_eq!(safe(wish), name, "{wish:?}");
        }
        for wish in ["x".repeat(1000), "ä.".repeat(500), "- .".repeat(99), format!("{}.con", "a".repeat(127))]
        {
            assert!(safe(&wish).len() <= LONGEST);
            assert_eq!(safe(&safe(&wish)), safe(&wish));
        }
    }
}
