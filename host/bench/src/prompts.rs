//! What is asked. Each set is made of a few shapes and many subjects, so that prompts differ.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use tightwad_core::{Message, Prompt};

const SUBJECTS: [&str; 10] = [
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
const NAMES: [&str; 10] =
    ["add", "scale", "parse", "load", "merge", "split", "count", "join", "sort", "trim"];

/// Questions that are answered with prose: little stands there twice.
pub(crate) fn prose(index: usize) -> String {
    let forms = [
        "Write a short story about",
        "Explain to a child",
        "Describe in vivid words",
        "Write a letter about",
        "Give your opinion on",
    ];
    format!("{} {}.", forms[index / SUBJECTS.len() % forms.len()], SUBJECTS[index % SUBJECTS.len()])
}

/// Text to be given back with small changes, begun already as small models need it: much of what
/// follows stands there.
fn repetitive(index: usize) -> String {
    let name = NAMES[index % NAMES.len()];
    match index % 3 {
        0 => {
            let code = code(index);
            let renamed = code.lines().take(4).map(|line| line.replace("rows", "table"));
            let begun: Vec<String> = renamed.collect();
            format!(
                "```python\n{code}```\n\nThe same file, with `rows` renamed to `table`:\n\n```python\n{}\n",
                begun.join("\n")
            )
        }
        1 => {
            let text = story(index);
            let first = text.lines().next().unwrap_or_default();
            format!("The text:\n\n{text}\nThe text, quoted sentence by sentence:\n\n{first}\n")
        }
        _ => {
            let rows = |wide: bool| {
                (0..14).fold(String::new(), |mut all, row| {
                    let (open, close) = if wide { ("{ ", " }") } else { ("{", "}") };
                    let (id, size) = (index * 100 + row, (row * 37 + index * 11) % 400);
                    let _ = writeln!(all, "{open}\"id\": {id}, \"name\": \"{name}-{row}\", \"size\": {size}, \"owner\": \"team-{}\"{close}", row % 3);
                    all
                })
            };
            let wide = rows(true);
            let begun: Vec<&str> = wide.lines().take(3).collect();
            format!("JSON:\n{}\nThe same JSON, reformatted:\n{}\n", rows(false), begun.join("\n"))
        }
    }
}

fn code(index: usize) -> String {
    (0..6).fold(String::new(), |mut all, offset| {
        let name = NAMES[(index + offset) % NAMES.len()];
        let other = NAMES[(index + offset * 3 + 1) % NAMES.len()];
        let _ = writeln!(
            all,
            "def {name}_rows(rows, limit={}):\n    \"\"\"Returns the {name} of all rows.\"\"\"\n    result = []\n    for row in rows[:limit]:\n        if row.{other} is not None:\n            result.append({name}(row.{other}))\n    return result\n",
            index * 7 + offset * 10 + 5
        );
        all
    })
}

fn story(index: usize) -> String {
    (0..9).fold(String::new(), |mut all, offset| {
        let (a, b) = (SUBJECTS[(index + offset) % 10], SUBJECTS[(index * 3 + offset * 7 + 1) % 10]);
        let _ = writeln!(
            all,
            "In the year {}, the people of the valley spoke of {a} and of {b} as if they had never been apart.",
            1800 + index * 3 + offset * 11
        );
        all
    })
}

/// The `count` first prompts of a set: prose is asked in a conversation, the rest is raw text.
pub(crate) fn set(name: &str, count: usize) -> Vec<Prompt> {
    let prompt = |index| match name {
        "repetitive" => Prompt::Text(repetitive(index)),
        _ => Prompt::Chat(vec![user(prose(index))]),
    };
    (0..count).map(prompt).collect()
}

/// One message of a user.
pub(crate) fn user(content: String) -> Message {
    let fields = [("role", Value::from("user")), ("content", Value::from(content))];
    Message(Map::from_iter(fields.map(|(key, value)| (key.to_owned(), value))))
}

/// The names of the sets.
pub(crate) const SETS: [&str; 2] = ["prose", "repetitive"];
