//! What is asked. Each set is made of a few shapes and many subjects, so that prompts differ.

/// Continuations of prose: little stands there twice.
fn prose(index: usize) -> String {
    let subjects = [
        "the sea",
        "an old clock",
        "a railway station at night",
        "bread",
        "the moon",
        "a small town",
        "winter",
        "a lost key",
        "two brothers",
        "the first telephone",
    ];
    let forms = [
        "Write a short story about",
        "Explain to a child",
        "Describe in vivid words",
        "Write a letter about",
        "Give your opinion on",
    ];
    format!("{} {}.", forms[index / subjects.len() % forms.len()], subjects[index % subjects.len()])
}

/// Text to be given back with small changes: much stands there already.
fn repetitive(index: usize) -> String {
    let names = ["add", "scale", "parse", "load", "merge", "split", "count", "join", "sort", "trim"];
    let name = names[index % names.len()];
    let code = format!(
        "def {name}_values(values):\n    result = []\n    for value in values:\n        result.append({name}(value))\n    return result\n\ndef {name}_rows(rows):\n    result = []\n    for row in rows:\n        result.append({name}(row))\n    return result\n\ndef {name}_columns(columns):\n    result = []\n    for column in columns:\n        result.append({name}(column))\n    return result\n"
    );
    match index % 3 {
        0 => format!(
            "```python\n{code}```\n\nThe same file again, with type hints:\n\n```python\n{code}\ndef {name}_cells(cells):\n"
        ),
        1 => format!("Original:\n{code}\nCopy:\n{code}\nCopy:\n"),
        _ => {
            let rows: Vec<String> = (0..8)
                .map(|row| {
                    format!("{{\"id\": {row}, \"name\": \"{name}-{row}\", \"size\": {}}}", row * 10 + index)
                })
                .collect();
            format!(
                "Compact JSON:\n{}\n\nThe same JSON, one object a line:\n{}\n\nThe same JSON again:\n{}\n",
                rows.join(","),
                rows.join("\n"),
                rows[0]
            )
        }
    }
}

/// The `count` first prompts of a set, as raw text.
pub(super) fn set(name: &str, count: usize) -> Vec<String> {
    let of = if name == "repetitive" { repetitive } else { prose };
    (0..count).map(of).collect()
}

/// The names of the sets.
pub(super) const SETS: [&str; 2] = ["prose", "repetitive"];
