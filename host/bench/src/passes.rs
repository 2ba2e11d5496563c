//! Measures the passes of a target: prefill, one token, verifications of several lengths.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tightwad_core::{Draft, Prompt, Request, Sampling, SamplingSpec, SharedBackend};
use tightwad_script::Factory;

use crate::contest::connect_or_load;

/// Measured draft lengths.
const DRAFT_LENGTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Repetitions of each measurement. The fastest counts.
const REPETITIONS: usize = 3;
/// Default number of words of the prompt.
pub(crate) const DEFAULT_PROMPT_WORDS: usize = 200;

/// Measures the passes of a target.
#[derive(Debug, clap::Args)]
pub(crate) struct Measure {
    /// GGUF file or node's address. Repeatable.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: Vec<String>,
    /// Number of words of the prompt. Each word has several tokens.
    #[arg(long, default_value_t = DEFAULT_PROMPT_WORDS)]
    words: usize,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Measure {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        for name in &self.model {
            let passes = Passes::measure(&connect_or_load(factory, name, name).await?, self.words).await?;
            if self.json {
                println!("{}", json!({"model": name, "passes": passes.json()}));
            } else {
                println!("{name}: {} tokens, {passes}", passes.prompt_tokens);
            }
        }
        Ok(())
    }
}

/// Times of passes.
pub(crate) struct Passes {
    prompt_tokens: u32,
    prefill_time: Duration,
    token_time: Duration,
    /// Time of a verification by draft length. The target rejects the draft, and returns to its state before it.
    verification_times: Vec<(usize, Duration)>,
    /// Time of a verification whose draft the target accepts, for each of [`DRAFT_LENGTHS`].
    accepted_times: Vec<Duration>,
}

impl Passes {
    /// Measures `target`. Nothing else may use it.
    pub(crate) async fn measure(target: &SharedBackend, words: usize) -> Result<Self> {
        // The prompt is random, so that no prefix cache holds it.
        let salt = fastrand::u64(..);
        let words: Vec<String> =
            (0..words).map(|word| format!("{:x}", salt.wrapping_mul(word as u64 + 3) >> 40)).collect();
        let request = Arc::new(Request {
            id: "bench".to_owned(),
            prompt: Prompt::Text(words.join(" ").into()),
            sampling: Sampling::new(SamplingSpec { temperature: 0.0, ..SamplingSpec::default() })?,
            max_tokens: Some(400),
            ..Request::default()
        });
        let start = Instant::now();
        let mut opened = target.target()?.open_target(&request, None).await?;
        opened.session.verify(&Draft::default()).await?;
        let prefill_time = start.elapsed();
        let mut passes = Self {
            prompt_tokens: opened.prepared.prompt.len() as u32,
            prefill_time,
            token_time: Duration::MAX,
            verification_times: Vec::new(),
            accepted_times: Vec::new(),
        };
        // The target accepts none of these unlikely tokens, so each pass commits one token.
        let junk: Vec<u32> = (0..64).map(|index| 1000 + 7 * index).collect();
        for length in std::iter::once(0).chain(DRAFT_LENGTHS) {
            let draft = Draft::from_paths([junk[..length].to_vec()]);
            let mut min_time = Duration::MAX;
            for _ in 0..REPETITIONS {
                let start = Instant::now();
                opened.session.verify(&draft).await?;
                min_time = min_time.min(start.elapsed());
            }
            match length {
                0 => passes.token_time = min_time,
                length => passes.verification_times.push((length, min_time)),
            }
        }
        drop(opened);
        passes.accepted_times = accepted_times(target, &request).await?;
        Ok(passes)
    }

    pub(crate) fn json(&self) -> Value {
        let verification_times = self
            .verification_times
            .iter()
            .map(|(length, time)| (length.to_string(), json!(time.as_secs_f64() * 1e3)));
        json!({
            "prompt_tokens": self.prompt_tokens, "prefill_tokens_per_second": self.prefill_rate(),
            "token_ms": self.token_time.as_secs_f64() * 1e3,
            "verify_ms": verification_times.collect::<serde_json::Map<_, _>>(),
            "rejection_in_tokens": self.rejection_costs(),
        })
    }

    /// The additional time of a rejection by draft length, in passes of one token.
    fn rejection_costs(&self) -> Vec<f64> {
        let both = self.verification_times.iter().zip(&self.accepted_times);
        let more = both.map(|((_, rejected), accepted)| rejected.as_secs_f64() - accepted.as_secs_f64());
        more.map(|seconds| seconds / self.token_time.as_secs_f64()).collect()
    }

    /// Tokens per second of the prefill.
    fn prefill_rate(&self) -> f64 {
        f64::from(self.prompt_tokens) / self.prefill_time.as_secs_f64()
    }
}

impl fmt::Display for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "prefill {:.0} tokens/s, one token {:.1} ms, verifying",
            self.prefill_rate(),
            milliseconds(&self.token_time)
        )?;
        for (length, time) in &self.verification_times {
            write!(f, " {length}: {:.1}", milliseconds(time))?;
        }
        write!(f, " ms; a rejection adds")?;
        for ((length, _), cost) in self.verification_times.iter().zip(self.rejection_costs()) {
            write!(f, " {length}: {cost:.2}")?;
        }
        write!(f, " passes of one token")
    }
}

/// The times of verifications that accept their drafts, for each of [`DRAFT_LENGTHS`].
async fn accepted_times(target: &SharedBackend, request: &Arc<Request>) -> Result<Vec<Duration>> {
    let needed: usize = 1 + DRAFT_LENGTHS.iter().map(|length| REPETITIONS * (length + 1)).sum::<usize>();
    let mut session = target.target()?.open_target(request, None).await?.session;
    session.decode(u32::try_from(needed)?).await?;
    let mut answer: Vec<u32> = Vec::new();
    while let Some(step) = session.step().await? {
        answer.extend(step.committed.iter().map(|committed| committed.token));
    }
    drop(session);
    let mut session = target.target()?.open_target(request, None).await?.session;
    session.verify(&Draft::default()).await?;
    let (mut done, mut times) = (1, Vec::new());
    for length in DRAFT_LENGTHS {
        let mut min_time = Duration::MAX;
        for _ in 0..REPETITIONS {
            let draft = Draft::from_paths([answer.get(done..done + length).unwrap_or_default().to_vec()]);
            let start = Instant::now();
            done += session.verify(&draft).await?.committed.len();
            min_time = min_time.min(start.elapsed());
        }
        times.push(min_time);
    }
    Ok(times)
}
