//! Text that is hostile to a tokenizer: long runs of one kind of character. A stack overflow would end the
//! process of these tests.
use std::sync::Arc;

use tightwad_core::TokenId;
use tightwad_engine::{TextError, Weights, on_text_thread};
use tightwad_zoo::Kind;

use crate::support::{load_vocabulary, smollm2, zoo_model};

/// The maximum length of a run, in characters.
const MAX_RUN: usize = 1 << 17;
/// Stack size of a text thread.
const STACK_BYTES: u64 = 256 << 20;

/// Pre-tokenizers with different regular expressions, for which llama.cpp uses `std::regex`.
const PRE_TOKENIZERS: [&str; 13] = [
    "tekken",
    "gpt-4o",
    "deepseek-v3",
    "deepseek-llm",
    "youtu",
    "bailingmoe",
    "minicpm5",
    "tiny_aya",
    "superbpe",
    "granite-embed-multi-97m",
    "exaone-moe",
    "bloom",
    "default",
];

/// The parts that runs repeat.
const PARTS: [&str; 8] = ["a", "A", " ", "\n", "ก", "-", "あ・", "7"];

async fn tokenize(weights: &Arc<Weights>, text: String) -> Result<Vec<TokenId>, TextError> {
    let weights = weights.clone();
    on_text_thread(move |thread| weights.tokenize(thread, &text, false, u32::MAX)).await.unwrap()
}

/// `part` repeated to a length of `characters` characters.
fn run_of(part: &str, characters: usize) -> String {
    part.chars().cycle().take(characters).collect()
}

/// The largest touched part of a text thread's stack, in bytes. Only these stacks have mappings of their
/// size.
fn max_touched_stack() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let kilobytes = |line: &str| line.split_whitespace().nth(1).and_then(|figure| figure.parse::<u64>().ok());
    let (mut stack, mut max_bytes) = (false, 0);
    for line in maps.lines() {
        match line.split(':').next() {
            Some("Size") => {
                stack = kilobytes(line).is_some_and(|size| size.abs_diff(STACK_BYTES >> 10) < 256)
            }
            Some("Rss") if stack => max_bytes = max_bytes.max(kilobytes(line).unwrap_or(0) << 10),
            _ => {}
        }
    }
    max_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn longest_run_fits_the_stack_with_every_pre_tokenizer() {
    let mut max_bytes = 0;
    for pre in PRE_TOKENIZERS {
        let weights = load_vocabulary(&zoo_model(Kind::Vocabulary(pre)));
        for part in PARTS {
            match tokenize(&weights, run_of(part, MAX_RUN)).await {
                Ok(tokens) => assert!(!tokens.is_empty()),
                // Expressions whose time grows with the square of the length.
                Err(TextError::LongRun { max, .. }) => {
                    assert!(max < MAX_RUN && ["deepseek-llm", "superbpe"].contains(&pre), "{pre} {part:?}");
                }
                Err(error) => panic!("{pre} {part:?}: {error}"),
            }
            let touched_bytes = max_touched_stack();
            if touched_bytes > max_bytes {
                println!(
                    "{pre} {part:?}: {} bytes of stack for each character",
                    touched_bytes / MAX_RUN as u64
                );
                max_bytes = touched_bytes;
            }
        }
    }
    // The reserve is for the frames of other standard libraries.
    assert!((1 << 20..STACK_BYTES * 4 / 5).contains(&max_bytes), "{max_bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_split_pre_tokenizers_have_no_run_limit() {
    // Runs that the stack could not hold.
    for pre in ["qwen2", "qwen35", "llama-bpe", "gpt-2", "smollm", "glm4"] {
        let weights = load_vocabulary(&zoo_model(Kind::Vocabulary(pre)));
        for part in ["a", " ", "猫7!"] {
            let tokens = tokenize(&weights, run_of(part, 7 * MAX_RUN)).await.unwrap();
            assert!(!tokens.is_empty(), "{pre} {part:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn longer_run_is_rejected_before_tokenizing() {
    let weights = load_vocabulary(&zoo_model(Kind::Vocabulary("tekken")));
    for part in PARTS {
        for characters in [MAX_RUN + 1, 3_000_000] {
            let start = std::time::Instant::now();
            let refused = tokenize(&weights, run_of(part, characters)).await;
            assert!(matches!(refused, Err(TextError::LongRun { .. })), "{part:?}");
            assert!(start.elapsed() < std::time::Duration::from_secs(5), "{part:?}");
        }
    }
    // All runs are short, but the text is long.
    let text = "one two 3 ".repeat(1_000_000);
    let weights = load_vocabulary(&smollm2());
    let refused = on_text_thread(move |thread| weights.tokenize(thread, &text, false, 8192)).await.unwrap();
    assert!(matches!(refused, Err(TextError::TooLong { context: 8192, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_special_tokens_are_rejected_and_the_maximum_is_tokenized_in_time() {
    let weights = load_vocabulary(&smollm2());
    for (count, fits) in [(1 << 15, true), ((1 << 15) + 1, false), (1_000_000, false)] {
        let (weights, text) = (weights.clone(), "<|im_end|>".repeat(count));
        let start = std::time::Instant::now();
        let tokens =
            on_text_thread(move |thread| weights.tokenize(thread, &text, true, u32::MAX)).await.unwrap();
        match tokens {
            Ok(tokens) => assert!(fits && tokens.len() == count),
            Err(error) => {
                assert!(!fits && matches!(error, TextError::TooManySpecialTokens { .. }), "{error}")
            }
        }
        println!("{count}: {:?}", start.elapsed());
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{count}: {:?}", start.elapsed());
    }
}
