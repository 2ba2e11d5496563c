//! Questions with one right answer.

use serde_json::{Value, json};
use tightwad_core::Prompt;

use crate::prompts::user;

const NAMES: [&str; 8] = ["Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo"];
const TOWNS: [&str; 7] = ["Bern", "Lyon", "Oslo", "Porto", "Riga", "Turin", "Ghent"];

/// A question with its right answer.
pub(crate) struct Question {
    pub prompt: Prompt,
    answer: Value,
}

impl Question {
    /// True if `text` contains the right number last, or is the right JSON object, with or without a code block.
    pub(crate) fn is_right(&self, text: &str) -> bool {
        if self.answer.is_number() {
            let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
            let last = numbers.next_back().and_then(|last| last.parse::<u64>().ok());
            return last.is_some() && last == self.answer.as_u64();
        }
        let object = text.find('{').zip(text.rfind('}')).and_then(|(from, to)| text.get(from..=to));
        object.and_then(|object| serde_json::from_str(object).ok()) == Some(self.answer.clone())
    }
}

/// `count` sums and products.
pub(crate) fn arithmetic(count: usize) -> Vec<Question> {
    let question = |index: usize| {
        let (a, b) = (13 + index * 17 % 70, 11 + index * 29 % 60);
        let (sign, answer) = if index % 3 == 2 { ("*", a * b) } else { ("+", a + b) };
        let text = format!("What is {a} {sign} {b}? Think step by step, and end with the number alone.");
        Question { prompt: Prompt::Chat([user(text)].into()), answer: json!(answer) }
    };
    (0..count).map(question).collect()
}

/// `count` sentences to convert into JSON.
pub(crate) fn extraction(count: usize) -> Vec<Question> {
    let question = |index: usize| {
        let (name, town) = (NAMES[index % NAMES.len()], TOWNS[index * 3 % TOWNS.len()]);
        let (age, rooms) = (20 + index * 7 % 50, 2 + index % 5);
        let text = format!(
            "{name} is {age} years old and lives in {town} in a flat with {rooms} rooms. Write a JSON object with the keys \"name\", \"age\", \"town\" and \"rooms\". Answer with the JSON alone."
        );
        let answer = json!({"name": name, "age": age, "town": town, "rooms": rooms});
        Question { prompt: Prompt::Chat([user(text)].into()), answer }
    };
    (0..count).map(question).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_and_the_object_count() {
        let sum = &arithmetic(1)[0];
        assert!(sum.is_right("13 + 11 = 24\n**24**"));
        assert!(!sum.is_right("24, or rather 25"));
        let object = &extraction(1)[0];
        assert!(
            object.is_right(
                "```json\n{\"town\": \"Bern\", \"age\": 20, \"name\": \"Anna\", \"rooms\": 2}\n```"
            )
        );
        assert!(!object.is_right("{\"name\": \"Anna\"}"));
    }
}
