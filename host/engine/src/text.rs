//! Text threads: they tokenize text and compile grammars.
//!
//! llama.cpp splits text with `std::regex` for many pre-tokenizers (`unicode_regex_split_stl` in its
//! `unicode.cpp`). `std::regex` recurses once per matched character, and a stack overflow would end the
//! process. So this work runs on threads with large stacks, and [`MatchReach`] rejects text that even these
//! stacks cannot hold.
//!
//! Invariant: a [`TextThread`] exists only on such a thread. A function that recurses over text takes one as
//! an argument.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// The longest run of characters that a pre-tokenizer's regular expression is allowed to match.
const MAX_RUN_CHARACTERS: usize = 1 << 17;
/// Stack size of a text thread. A character of a run takes 320 bytes (`tests/text.rs` measures it with
/// llama.cpp 0.6.0 and GCC 12). The rest is a reserve for other compilers and grammars. Untouched
/// pages take no memory, and the system frees touched pages when the thread ends.
const STACK_BYTES: usize = 256 << 20;
/// The idle time after which a thread ends and frees its stack.
const IDLE_STACK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// The maximum number of texts that wait for a thread.
const MAX_QUEUED_TEXTS: usize = 256;

/// Proof that the code runs on a text thread.
pub struct TextThread(());

/// An error of tokenizing or rendering a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The text has more bytes than the tokens of the context can have.
    #[error(
        "the text has at least {tokens} tokens, and this model's context is {context} tokens. Shorten the text"
    )]
    TooLong {
        /// The minimum number of tokens of the text.
        tokens: usize,
        /// Context length in tokens.
        context: u32,
    },
    /// A run of characters of one kind is too long for the stack.
    #[error(
        "the text has {characters} consecutive characters {description}; this model's tokenizer accepts at most {max}. \
         Insert other characters"
    )]
    LongRun {
        /// Length of the run in characters.
        characters: usize,
        /// A description of the run's characters.
        description: &'static str,
        /// The maximum length of a run in characters.
        max: usize,
    },
    /// The text has more special tokens than llama.cpp can split in a reasonable time.
    #[error(
        "the text has more than {max} special tokens, the maximum of this model's tokenizer. Shorten the text"
    )]
    TooManySpecialTokens {
        /// The maximum number of special tokens in a text.
        max: usize,
    },
    /// All threads are busy, and the queue is full.
    #[error("{waiting} texts are already waiting for a tokenizer thread. Try again later")]
    Busy {
        /// The number of waiting texts.
        waiting: usize,
    },
    /// The work panicked, or the threads did not start.
    #[error("the tokenizer thread failed: {0}")]
    Crashed(String),
}

/// Runs `work` on the next free text thread.
///
/// # Errors
///
/// [`TextError::Busy`] if the queue is full, [`TextError::Crashed`] if `work` panics.
pub async fn on_text_thread<T: Send + 'static>(
    work: impl FnOnce(&TextThread) -> T + Send + 'static,
) -> Result<T, TextError> {
    static WAITING: AtomicUsize = AtomicUsize::new(0);
    let pool = pool().as_ref().map_err(|error| TextError::Crashed(error.clone()))?;
    let waiting = WAITING.fetch_add(1, Ordering::AcqRel);
    let queue_entry = QueueEntry(&WAITING);
    if waiting >= MAX_QUEUED_TEXTS {
        return Err(TextError::Busy { waiting });
    }
    let permit = pool.permits.acquire().await;
    drop(queue_entry);
    let run = move || {
        // The thread holds the permit even after the caller has stopped waiting.
        let _permit = permit;
        work(&TextThread(()))
    };
    let result = pool.runtime.spawn_blocking(run).await;
    result.map_err(|error| TextError::Crashed(error.to_string()))
}

/// Threads with large stacks: the blocking threads of a tokio runtime that runs nothing else.
struct TextPool {
    runtime: Runtime,
    permits: Semaphore,
}

fn pool() -> &'static Result<TextPool, String> {
    static POOL: OnceLock<Result<TextPool, String>> = OnceLock::new();
    POOL.get_or_init(|| {
        let threads = crate::runtime::cpu_count().clamp(2, 8);
        let runtime = Builder::new_current_thread()
            .thread_name("text")
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(threads)
            .thread_keep_alive(IDLE_STACK_TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(TextPool { runtime, permits: Semaphore::new(threads) })
    })
}

/// A place in the queue.
struct QueueEntry(&'static AtomicUsize);

impl Drop for QueueEntry {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The characters that one match of a pre-tokenizer can span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchReach {
    /// No recursion: the tokenizer has no regular expressions, or llama.cpp splits without them.
    NoRecursion,
    /// Characters of one class: letters, digits, or all others.
    CharacterClass,
    /// As `CharacterClass`; the time for blanks grows with the square of their number.
    QuadraticBlanks,
    /// As `CharacterClass`; the time for digits grows with the square of their number.
    QuadraticDigits,
    /// All characters but white space.
    NonBlank,
    /// A whole line.
    Line,
}

/// A class of characters, its description, and the maximum length of a run of them.
type RunLimit = (fn(char) -> bool, &'static str, usize);

/// The maximum length of a run whose time grows with the square of its length.
const MAX_QUADRATIC_RUN_CHARACTERS: usize = 1 << 13;

/// Pre-tokenizers that llama.cpp splits without `std::regex` (`unicode_regex_split_custom` in its
/// `unicode.cpp`).
#[rustfmt::skip]
const HAND_SPLIT_PRE_TOKENIZERS: [&str; 43] = [
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "dbrx", "smaug-bpe",
    "chatglm-bpe", "glm4", "glm5", "qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan",
    "solar-open", "qwen35", "grok-2", "gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais",
    "trillion", "granite-docling", "exaone4", "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone",
    "minerva-7b", "kimi-k2", "gemma4", "sarvam-moe",
];

impl MatchReach {
    /// The reach of a tokenizer, by the GGUF keys `tokenizer.ggml.model` and `tokenizer.ggml.pre`. The reach
    /// follows from the regular expressions in `llm_tokenizer_bpe` of llama.cpp's `llama-vocab.cpp` 0.6.0.
    /// llama.cpp does not load unknown pre-tokenizers.
    pub(crate) fn for_tokenizer(model: &str, pre: &str) -> Self {
        if model == "gemma4" || model != "gpt2" || HAND_SPLIT_PRE_TOKENIZERS.contains(&pre) {
            return Self::NoRecursion;
        }
        match pre {
            "poro-chat" | "bloom" | "gpt3-finnish" | "viking" | "whitespace" => Self::NonBlank,
            // One match spans all words of a line that have single blanks between them.
            "exaone-moe" => Self::Line,
            // The expression for trailing blanks backtracks if another character follows.
            "deepseek-llm" => Self::QuadraticBlanks,
            // The expression looks ahead over groups of three digits.
            "superbpe" => Self::QuadraticDigits,
            _ => Self::CharacterClass,
        }
    }

    /// The run limits of this reach.
    fn run_limits(self) -> &'static [RunLimit] {
        const MAX: usize = MAX_RUN_CHARACTERS;
        const MAX_QUADRATIC: usize = MAX_QUADRATIC_RUN_CHARACTERS;
        const LETTERS: RunLimit =
            (|c| !c.is_ascii() || c.is_ascii_alphabetic(), "that may all be letters", MAX);
        const DIGITS: RunLimit = (|c| !c.is_ascii() || c.is_ascii_digit(), "that may all be digits", MAX);
        const OTHERS: RunLimit = (|c| !c.is_ascii_alphanumeric(), "without a letter or digit of ASCII", MAX);
        match self {
            Self::NoRecursion => &[],
            Self::CharacterClass => &[LETTERS, DIGITS, OTHERS],
            Self::QuadraticBlanks => {
                &[(char::is_whitespace, "that are blank", MAX_QUADRATIC), LETTERS, DIGITS, OTHERS]
            }
            Self::QuadraticDigits => {
                &[(char::is_numeric, "that are digits", MAX_QUADRATIC), LETTERS, DIGITS, OTHERS]
            }
            Self::NonBlank => &[(|c| !c.is_ascii_whitespace(), "without a blank", MAX)],
            Self::Line => &[(|c| c != '\n', "without a line break", MAX)],
        }
    }

    /// Rejects a text with a run that the stack cannot hold.
    pub(crate) fn check(self, text: &str) -> Result<(), TextError> {
        for (belongs, description, max) in self.run_limits() {
            // A character has at least one byte, so a short text has no long run.
            if text.len() <= *max {
                continue;
            }
            let parts = text.split(|character| !belongs(character));
            let characters = parts.filter(|part| part.len() > *max).map(|part| part.chars().count()).max();
            if let Some(characters) = characters.filter(|characters| characters > max) {
                return Err(TextError::LongRun { characters, description, max: *max });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test for all cases, because the thread pool is global.
    #[tokio::test(flavor = "multi_thread")]
    async fn text_work_runs_on_text_threads_queues_and_is_rejected_when_the_queue_is_full() {
        let name = on_text_thread(|_| std::thread::current().name().map(str::to_owned)).await.unwrap();
        assert_eq!(name.as_deref(), Some("text"));
        let crashed = on_text_thread(|_| -> u32 { panic!("no") }).await;
        assert!(matches!(crashed, Err(TextError::Crashed(_))), "{crashed:?}");
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..2 * MAX_QUEUED_TEXTS {
            let gate = gate.clone();
            tasks.spawn(on_text_thread(move |_| gate.lock().unwrap().recv().is_ok()));
        }
        // The threads are blocked, so the first task to end was rejected.
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
        assert!(done >= MAX_QUEUED_TEXTS && refused > 1, "{done} {refused}");
        assert_eq!(on_text_thread(|_| 5).await, Ok(5));
    }

    #[test]
    fn runs_end_where_every_regular_expression_ends() {
        let max = MAX_RUN_CHARACTERS;
        let check = |reach: MatchReach, text: &str| reach.check(text).is_ok();
        for part in ["a", "A", " ", "\n", "ก", "猫", "7", "-", "\u{301}!", "é", " \n/", "é7"] {
            let count = part.chars().count();
            assert!(check(MatchReach::CharacterClass, &part.repeat(100_000 / count)), "{part:?}");
            assert!(!check(MatchReach::CharacterClass, &part.repeat(max / count + 1)), "{part:?}");
        }
        assert!(check(MatchReach::CharacterClass, &"one, two 3 ".repeat(max)));
        assert!(check(MatchReach::CharacterClass, &"猫 is a cat. ".repeat(max)));
        assert!(check(MatchReach::NonBlank, &"a-7猫 ".repeat(max)));
        assert!(!check(MatchReach::NonBlank, &"a-7猫".repeat(max)));
        assert!(check(MatchReach::Line, &"one two\n".repeat(max)));
        assert!(!check(MatchReach::Line, &"one two ".repeat(max)));
        assert!(check(MatchReach::NoRecursion, &"a".repeat(2 * max)));
        let max_quadratic = MAX_QUADRATIC_RUN_CHARACTERS;
        assert!(
            check(MatchReach::QuadraticDigits, &"7".repeat(max_quadratic))
                && !check(MatchReach::QuadraticDigits, &"7".repeat(max_quadratic + 1))
        );
        assert!(
            check(MatchReach::QuadraticBlanks, &"a".repeat(max))
                && !check(MatchReach::QuadraticBlanks, &" ".repeat(max_quadratic + 1))
        );
        assert_eq!(MatchReach::for_tokenizer("gpt2", "qwen2"), MatchReach::NoRecursion);
        assert_eq!(MatchReach::for_tokenizer("gpt2", "tekken"), MatchReach::CharacterClass);
        assert_eq!(MatchReach::for_tokenizer("llama", "default"), MatchReach::NoRecursion);
    }
}
