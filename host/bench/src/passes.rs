//! What a target's passes take: reading a prompt, one token, a verification of every length.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tightwad_core::{Draft, Prompt, Request, Sampling, SamplingSpec, SharedBackend};
use tightwad_script::Factory;

use crate::contest::connect_or_load;

/// Draft lengths that are measured.
const LENGTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// How often each is; the quickest counts.
const TIMES: usize = 3;
/// Words of the prompt, unless told otherwise.
pub(crate) const WORDS: usize = 200;

/// What passes of several lengths take.
#[derive(Debug, clap::Args)]
pub(crate) struct Measure {
    /// GGUF files, or nodes' addresses.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: Vec<String>,
    /// Words of the prompt, of several tokens each.
    #[arg(long, default_value_t = WORDS)]
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
                println!("{name}: {} tokens, {passes}", passes.prompt);
            }
        }
        Ok(())
    }
}

/// What passes take.
pub(crate) struct Passes {
    prompt: u32,
    prefill: Duration,
    token: Duration,
    /// By draft length.
    verify: Vec<(usize, Duration)>,
}

impl Passes {
    /// Measures `target`, which nothing else uses.
    pub(crate) async fn measure(target: &SharedBackend, words: usize) -> Result<Self> {
        // Something that is in nobody's cache.
        let salt = fastrand::u64(..);
        let words: Vec<String> =
            (0..words).map(|word| format!("{:x}", salt.wrapping_mul(word as u64 + 3) >> 40)).collect();
        let request = Arc::new(Request {
            id: "bench".to_owned(),
            prompt: Prompt::Text(words.join(" ")),
            sampling: Sampling::new(SamplingSpec { temperature: 0.0, ..SamplingSpec::default() })?,
            max_tokens: Some(400),
            ..Request::default()
        });
        let start = Instant::now();
        let mut opened = target.target()?.open_target(&request, None).await?;
        opened.session.verify(&Draft::default()).await?;
        let prefill = start.elapsed();
        let mut passes = Self {
            prompt: opened.task.prompt.len() as u32,
            prefill,
            token: Duration::MAX,
            verify: Vec::new(),
        };
        // Tokens that the target would hardly choose: each pass commits one token, however long it is.
        let junk: Vec<u32> = (0..64).map(|at| 1000 + 7 * at).collect();
        for length in std::iter::once(0).chain(LENGTHS) {
            let draft = Draft::of([junk[..length].to_vec()]);
            let mut least = Duration::MAX;
            for _ in 0..TIMES {
                let start = Instant::now();
                opened.session.verify(&draft).await?;
                least = least.min(start.elapsed());
            }
            match length {
                0 => passes.token = least,
                length => passes.verify.push((length, least)),
            }
        }
        Ok(passes)
    }

    pub(crate) fn json(&self) -> Value {
        let verify =
            self.verify.iter().map(|(length, took)| (length.to_string(), json!(took.as_secs_f64() * 1e3)));
        json!({
            "prompt_tokens": self.prompt, "prefill_tokens_a_second": self.rate(),
            "token_ms": self.token.as_secs_f64() * 1e3,
            "verify_ms": verify.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn rate(&self) -> f64 {
        f64::from(self.prompt) / self.prefill.as_secs_f64()
    }
}

impl fmt::Display for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "prefill {:.0} tokens/s, a call for a token {:.1} ms, verifying",
            self.rate(),
            milliseconds(&self.token)
        )?;
        for (length, took) in &self.verify {
            write!(f, " {length}: {:.1}", milliseconds(took))?;
        }
        write!(f, " ms")
    }
}
