//! Text that is hostile to a tokenizer: long stretches of one kind of character. An overflow of the stack would end
//! the process of these tests.
use std::sync::Arc;

use tightwad_core::TokenId;
use tightwad_engine::{TextError, Weights, on_text_thread};
use tightwad_zoo::Kind;

use crate::support::{smollm2, vocabulary, zoo};

/// Longest stretch that is taken, in characters.
const MAX_STRETCH: usize = 1 << 17;
/// Stack of a text thread.
const STACK_BYTES: u64 = 256 << 20;

/// Pre-tokenizers of llama.cpp whose regular expressions it does not split by hand, with different expressions.
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

/// What stretches are made of.
const PARTS: [&str; 8] = ["a", "A", " ", "\n", "ก", "-", "あ・", "7"];

async fn tokenized(weights: &Arc<Weights>, text: String) -> Result<Vec<TokenId>, TextError> {
    let weights = weights.clone();
    on_text_thread(move |thread| weights.tokenize(thread, &text, false, u32::MAX)).await.unwrap()
}

/// `part` again and again, to `characters` characters.
fn stretch(part: &str, characters: usize) -> String {
    part.chars().cycle().take(characters).collect()
}

/// Most of a text thread's stack that was ever touched, in bytes. The stacks are the only mappings of their size.
fn touched() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let kilobytes = |line: &str| line.split_whitespace().nth(1).and_then(|figure| figure.parse::<u64>().ok());
    let (mut stack, mut most) = (false, 0);
    for line in maps.lines() {
        match line.split(':').next() {
            Some("Size") => {
                stack = kilobytes(line).is_some_and(|size| size.abs_diff(STACK_BYTES >> 10) < 256)
            }
            Some("Rss") if stack => most = most.max(kilobytes(line).unwrap_or(0) << 10),
            _ => {}
        }
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_stretch_fits_the_stack_with_every_pre_tokenizer() {
    let mut most = 0;
    for pre in PRE_TOKENIZERS {
        let weights = vocabulary(&zoo(Kind::Vocabulary(pre)));
        for part in PARTS {
            match tokenized(&weights, stretch(part, MAX_STRETCH)).await {
                Ok(tokens) => assert!(!tokens.is_empty()),
                // Expressions whose time grows with the square.
                Err(TextError::Stretch { most, .. }) => {
                    assert!(
                        most < MAX_STRETCH && ["deepseek-llm", "superbpe"].contains(&pre),
                        "{pre} {part:?}"
                    );
                }
                Err(error) => panic!("{pre} {part:?}: {error}"),
            }
            let now = touched();
            if now > most {
                println!("{pre} {part:?}: {} bytes of stack for each character", now / MAX_STRETCH as u64);
                most = now;
            }
        }
    }
    // With room for another standard library's frames.
    assert!((1 << 20..STACK_BYTES * 4 / 5).contains(&most), "{most} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_llama_cpp_splits_by_hand_has_no_longest_stretch() {
    // More than the stack would hold.
    for pre in ["qwen2", "qwen35", "llama-bpe", "gpt-2", "smollm", "glm4"] {
        let weights = vocabulary(&zoo(Kind::Vocabulary(pre)));
        for part in ["a", " ", "猫7!"] {
            let tokens = tokenized(&weights, stretch(part, 7 * MAX_STRETCH)).await.unwrap();
            assert!(!tokens.is_empty(), "{pre} {part:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_is_refused_before_it_is_split() {
    let weights = vocabulary(&zoo(Kind::Vocabulary("tekken")));
    for part in PARTS {
        for characters in [MAX_STRETCH + 1, 3_000_000] {
            let start = std::time::Instant::now();
            let refused = tokenized(&weights, stretch(part, characters)).await;
            assert!(matches!(refused, Err(TextError::Stretch { .. })), "{part:?}");
            assert!(start.elapsed() < std::time::Duration::from_secs(5), "{part:?}");
        }
    }
    // No stretch is long, but the text is.
    let text = "one two 3 ".repeat(1_000_000);
    let weights = vocabulary(&smollm2());
    let refused = on_text_thread(move |thread| weights.tokenize(thread, &text, false, 8192)).await.unwrap();
    assert!(matches!(refused, Err(TextError::TooLong { context: 8192, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn special_tokens_without_number_are_refused_and_many_are_told_apart_in_time() {
    let weights = vocabulary(&smollm2());
    for (count, fits) in [(1 << 15, true), ((1 << 15) + 1, false), (1_000_000, false)] {
        let (weights, text) = (weights.clone(), "<|im_end|>".repeat(count));
        let start = std::time::Instant::now();
        let tokens =
            on_text_thread(move |thread| weights.tokenize(thread, &text, true, u32::MAX)).await.unwrap();
        match tokens {
            Ok(tokens) => assert!(fits && tokens.len() == count),
            Err(error) => assert!(!fits && matches!(error, TextError::Specials { .. }), "{error}"),
        }
        println!("{count}: {:?}", start.elapsed());
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{count}: {:?}", start.elapsed());
    }
}
