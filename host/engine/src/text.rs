//! The threads on which text is read: templates are rendered, text becomes tokens, grammars are compiled.
//!
//! llama.cpp splits text with `std::regex` for many pre-tokenizers (`unicode_regex_split_stl` in its
//! `unicode.cpp`), which recurses once per matched character. A stack overflow would end the process, so this
//! work has threads of its own with large stacks, and [`Reach`] refuses text that even they cannot hold.
//!
//! Invariant: a [`TextThread`] exists only on such a thread, and what recurses over text takes one as an argument.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// Longest stretch that a pre-tokenizer's regular expression may match, in characters.
const MAX_STRETCH_CHARACTERS: usize = 1 << 17;
/// Stack of a text thread. A character of a stretch takes 320 bytes of it (`tests/text.rs` measures it with llama.cpp
/// 0.6.0 and GCC 12); the rest is for other compilers, templates and grammars. Pages that are never touched take no
/// memory, and those that were are given back when the thread ends.
const STACK_BYTES: usize = 256 << 20;
/// Longest time that an idle thread keeps its stack.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(5);
/// Pieces of work that may wait for a thread.
const MAX_WAITING: usize = 256;

/// Proof of running on a text thread.
pub struct TextThread(());

#[cfg(test)]
impl TextThread {
    /// For tests that read short texts on their own thread.
    pub(crate) fn for_tests() -> Self {
        Self(())
    }
}

/// Text that is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// More bytes than the context's tokens can have.
    #[error("the text has at least {tokens} tokens, and this model's context is {context}; shorten it")]
    TooLong {
        /// Fewest tokens that the text can have.
        tokens: usize,
        /// Tokens of the context.
        context: u32,
    },
    /// One stretch of characters is longer than a stack can hold.
    #[error(
        "the text has {characters} characters in a row {of}, and this model's tokenizer takes at most {most}; \
         break them up"
    )]
    Stretch {
        /// Characters of the stretch.
        characters: usize,
        /// What the stretch lacks.
        of: &'static str,
        /// Most characters of a stretch.
        most: usize,
    },
    /// More special tokens are written out than can be told apart in a reasonable time.
    #[error(
        "the text has more than {most} special tokens, which is as many as this model's tokenizer takes; shorten it"
    )]
    Specials {
        /// Most special tokens of a text.
        most: usize,
    },
    /// All threads are taken, and the queue is full.
    #[error("{waiting} texts are already waiting to be read; try again later")]
    Busy {
        /// Texts that wait.
        waiting: usize,
    },
    /// The work panicked.
    #[error("reading the text failed: {0}")]
    Crashed(String),
}

/// Runs `work` on a text thread, when one is free.
///
/// # Errors
///
/// [`TextError::Busy`] when too much waits already, [`TextError::Crashed`] when `work` panics.
pub async fn on_text_thread<T: Send + 'static>(
    work: impl FnOnce(&TextThread) -> T + Send + 'static,
) -> Result<T, TextError> {
    static WAITING: AtomicUsize = AtomicUsize::new(0);
    let pool = pool().as_ref().map_err(|error| TextError::Crashed(error.clone()))?;
    let waiting = WAITING.fetch_add(1, Ordering::AcqRel);
    let queued = Queued(&WAITING);
    if waiting >= MAX_WAITING {
        return Err(TextError::Busy { waiting });
    }
    let turn = pool.turns.acquire().await;
    drop(queued);
    let run = move || {
        // The thread keeps the turn even after the caller has stopped waiting.
        let _turn = turn;
        work(&TextThread(()))
    };
    let done = pool.runtime.spawn_blocking(run).await;
    done.map_err(|error| TextError::Crashed(error.to_string()))
}

/// Threads with large stacks: tokio's blocking threads of a runtime that does nothing else.
struct Pool {
    runtime: Runtime,
    turns: Semaphore,
}

fn pool() -> &'static Result<Pool, String> {
    static POOL: OnceLock<Result<Pool, String>> = OnceLock::new();
    POOL.get_or_init(|| {
        let threads = crate::runtime::processors().clamp(2, 8);
        let runtime = Builder::new_current_thread()
            .thread_name("text")
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(threads)
            .thread_keep_alive(KEEP_ALIVE)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Pool { runtime, turns: Semaphore::new(threads) })
    })
}

/// One place in the queue.
struct Queued(&'static AtomicUsize);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How far one match of a pre-tokenizer can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing recurses: the tokenizer has no regular expressions, or llama.cpp splits by hand.
    Nowhere,
    /// Over characters of one kind: letters, digits, or everything else.
    Kind,
    /// The same, and blanks take a time that grows with the square of their number.
    SlowBlanks,
    /// The same with digits.
    SlowDigits,
    /// Over everything but white space.
    Word,
    /// Over a whole line.
    Line,
}

/// Characters that one match may take, words for them, and most of them.
type Stretch = (fn(char) -> bool, &'static str, usize);

/// Most characters of a stretch that takes a time that grows with the square of their number.
const MAX_SLOW_STRETCH_CHARACTERS: usize = 1 << 13;

/// Pre-tokenizers that `unicode_regex_split_custom` of llama.cpp's `unicode.cpp` splits by hand.
#[rustfmt::skip]
const BY_HAND: [&str; 43] = [
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "dbrx", "smaug-bpe",
    "chatglm-bpe", "glm4", "glm5", "qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan",
    "solar-open", "qwen35", "grok-2", "gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais",
    "trillion", "granite-docling", "exaone4", "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone",
    "minerva-7b", "kimi-k2", "gemma4", "sarvam-moe",
];

impl Reach {
    /// The reach of a tokenizer by its GGUF keys `tokenizer.ggml.model` and `tokenizer.ggml.pre`. It follows the
    /// regular expressions in `llm_tokenizer_bpe` of llama.cpp's `llama-vocab.cpp` 0.6.0, which loads no
    /// pre-tokenizer that it does not know.
    pub(crate) fn of(model: &str, pre: &str) -> Self {
        if model == "gemma4" || model != "gpt2" || BY_HAND.contains(&pre) {
            return Self::Nowhere;
        }
        match pre {
            "poro-chat" | "bloom" | "gpt3-finnish" | "viking" | "whitespace" => Self::Word,
            // Words with single blanks between them are one match.
            "exaone-moe" => Self::Line,
            // Its expression for blanks at the end fails slowly where something follows.
            "deepseek-llm" => Self::SlowBlanks,
            // A look ahead over groups of three.
            "superbpe" => Self::SlowDigits,
            _ => Self::Kind,
        }
    }

    /// The stretches that it takes.
    fn stretches(self) -> &'static [Stretch] {
        const MAX: usize = MAX_STRETCH_CHARACTERS;
        const MAX_SLOW: usize = MAX_SLOW_STRETCH_CHARACTERS;
        const LETTERS: Stretch =
            (|c| !c.is_ascii() || c.is_ascii_alphabetic(), "that may all be letters", MAX);
        const DIGITS: Stretch = (|c| !c.is_ascii() || c.is_ascii_digit(), "that may all be digits", MAX);
        const OTHERS: Stretch = (|c| !c.is_ascii_alphanumeric(), "without a letter or digit of ASCII", MAX);
        match self {
            Self::Nowhere => &[],
            Self::Kind => &[LETTERS, DIGITS, OTHERS],
            Self::SlowBlanks => &[(char::is_whitespace, "that are blank", MAX_SLOW), LETTERS, DIGITS, OTHERS],
            Self::SlowDigits => &[(char::is_numeric, "that are digits", MAX_SLOW), LETTERS, DIGITS, OTHERS],
            Self::Word => &[(|c| !c.is_ascii_whitespace(), "without a blank", MAX)],
            Self::Line => &[(|c| c != '\n', "without a line break", MAX)],
        }
    }

    /// Refuses a text with a stretch that no stack holds.
    pub(crate) fn check(self, text: &str) -> Result<(), TextError> {
        for (belongs, of, most) in self.stretches() {
            // A character has a byte at least: short texts need no look.
            if text.len() <= *most {
                continue;
            }
            let parts = text.split(|character| !belongs(character));
            let characters = parts.filter(|part| part.len() > *most).map(|part| part.chars().count()).max();
            if let Some(characters) = characters.filter(|characters| characters > most) {
                return Err(TextError::Stretch { characters, of, most: *most });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: the pool is the process's.
    #[tokio::test(flavor = "multi_thread")]
    async fn work_has_its_threads_waits_for_its_turn_and_is_refused_when_too_much_waits() {
        let name = on_text_thread(|_| std::thread::current().name().map(str::to_owned)).await.unwrap();
        assert_eq!(name.as_deref(), Some("text"));
        let crashed = on_text_thread(|_| -> u32 { panic!("no") }).await;
        assert!(matches!(crashed, Err(TextError::Crashed(_))), "{crashed:?}");
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..2 * MAX_WAITING {
            let gate = gate.clone();
            tasks.spawn(on_text_thread(move |_| gate.lock().unwrap().recv().is_ok()));
        }
        // The threads are blocked, so whatever ends first was refused.
        let first = tasks.join_next().await.unwrap().unwrap();
        assert!(matches!(first, Err(TextError::Busy { .. })), "{first:?}");
        drop(release);
        let (mut done, mut refused) = (0, 1);
        while let Some(task) = tasks.join_next().await {
            match task.unwrap() {
                Ok(_) => done += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(done >= MAX_WAITING && refused > 1, "{done} {refused}");
        assert_eq!(on_text_thread(|_| 5).await, Ok(5));
    }

    #[test]
    fn stretches_end_where_every_regular_expression_ends() {
        let most = MAX_STRETCH_CHARACTERS;
        let check = |reach: Reach, text: &str| reach.check(text).is_ok();
        for part in ["a", "A", " ", "\n", "ก", "猫", "7", "-", "\u{301}!", "é", " \n/", "é7"] {
            let count = part.chars().count();
            assert!(check(Reach::Kind, &part.repeat(100_000 / count)), "{part:?}");
            assert!(!check(Reach::Kind, &part.repeat(most / count + 1)), "{part:?}");
        }
        assert!(check(Reach::Kind, &"one, two 3 ".repeat(most)));
        assert!(check(Reach::Kind, &"猫 is a cat. ".repeat(most)));
        assert!(check(Reach::Word, &"a-7猫 ".repeat(most)));
        assert!(!check(Reach::Word, &"a-7猫".repeat(most)));
        assert!(check(Reach::Line, &"one two\n".repeat(most)));
        assert!(!check(Reach::Line, &"one two ".repeat(most)));
        assert!(check(Reach::Nowhere, &"a".repeat(2 * most)));
        let slow = MAX_SLOW_STRETCH_CHARACTERS;
        assert!(
            check(Reach::SlowDigits, &"7".repeat(slow)) && !check(Reach::SlowDigits, &"7".repeat(slow + 1))
        );
        assert!(
            check(Reach::SlowBlanks, &"a".repeat(most)) && !check(Reach::SlowBlanks, &" ".repeat(slow + 1))
        );
        assert_eq!(Reach::of("gpt2", "qwen2"), Reach::Nowhere);
        assert_eq!(Reach::of("gpt2", "tekken"), Reach::Kind);
        assert_eq!(Reach::of("llama", "default"), Reach::Nowhere);
    }
}
