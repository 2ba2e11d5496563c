//! The prompts of benchmarks, from templates and subjects.

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

/// A question whose answer is prose and repeats little text.
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

/// A text to repeat with small changes. The prompt holds the beginning of the answer, which small models need.
fn repetitive(index: usize) -> String {
    let name = NAMES[index % NAMES.len()];
    match index % 3 {
        0 => {
            let code = code(index);
            let renamed = code.lines().take(4).map(|line| line.replace("rows", "table"));
            let beginning: Vec<String> = renamed.collect();
            format!(
                "```python\n{code}```\n\nThe same file, with `rows` renamed to `table`:\n\n```python\n{}\n",
                beginning.join("\n")
            )
        }
        1 => {
            let text = story(index);
            let first = text.lines().next().unwrap_or_default();
            format!("The text:\n\n{text}\nThe text, quoted sentence by sentence:\n\n{first}\n")
        }
        _ => {
            let rows = |wide: bool| {
                (0..14).fold(String::new(), |mut text, row| {
                    let (open, close) = if wide { ("{ ", " }") } else { ("{", "}") };
                    let (id, size) = (index * 100 + row, (row * 37 + index * 11) % 400);
                    let _ = writeln!(text, "{open}\"id\": {id}, \"name\": \"{name}-{row}\", \"size\": {size}, \"owner\": \"team-{}\"{close}", row % 3);
                    text
                })
            };
            let wide = rows(true);
            let beginning: Vec<&str> = wide.lines().take(3).collect();
            format!("JSON:\n{}\nThe same JSON, reformatted:\n{}\n", rows(false), beginning.join("\n"))
        }
    }
}

fn code(index: usize) -> String {
    (0..6).fold(String::new(), |mut text, offset| {
        let name = NAMES[(index + offset) % NAMES.len()];
        let field = NAMES[(index + offset * 3 + 1) % NAMES.len()];
        let _ = writeln!(
            text,
            "def {name}_rows(rows, limit={}):\n    \"\"\"Returns the {name} of all rows.\"\"\"\n    result = []\n    for row in rows[:limit]:\n        if row.{field} is not None:\n            result.append({name}(row.{field}))\n    return result\n",
            index * 7 + offset * 10 + 5
        );
        text
    })
}

fn story(index: usize) -> String {
    (0..9).fold(String::new(), |mut text, offset| {
        let (a, b) = (SUBJECTS[(index + offset) % 10], SUBJECTS[(index * 3 + offset * 7 + 1) % 10]);
        let _ = writeln!(
            text,
            "In the year {}, the people of the valley spoke of {a} and of {b} as if they had never been apart.",
            1800 + index * 3 + offset * 11
        );
        text
    })
}

/// A call of an agent that asks for the same few functions again and again: each answer repeats parts of earlier answers,
/// which its prompt does not hold.
fn agent(index: usize) -> String {
    let name = NAMES[index / 2 % 3];
    let forms = [
        "Write a Python function",
        "The tests fail. Write again, complete, the Python function",
        "Write, with a docstring, the Python function",
        "For the final file, write the Python function",
    ];
    let form = forms[index % forms.len()];
    format!(
        "{form} `{name}_rows(rows, limit)`. It returns a list with the {name} of each row, up to the limit. Only code."
    )
}

/// The first `count` prompts of a set. Prose and the calls of an agent are chats; the others are raw text.
pub(crate) fn prompt_set(name: &str, count: usize) -> Vec<Prompt> {
    let prompt = |index| match name {
        "repetitive" => Prompt::Text(repetitive(index).into()),
        AGENT => Prompt::Chat([user(agent(index))].into()),
        _ => Prompt::Chat([user(prose(index))].into()),
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
/// The name of the set of calls of an agent.
pub(crate) const AGENT: &str = "agent";
