//! `tightwad plugin check`: a consensus policy on recorded ballots.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tightwad_modes::{Ballot, PolicyPlugin, Ruling, Vote};
use tightwad_sandbox::Slot;

use crate::cli::plugin::examined::examined;

/// Ballots that five re-quantized copies of SmolLM2 cast at temperature 0.8, following its output.
const RECORDED: &str = include_str!("ballots.json");
/// Calls that are timed for each set of ballots.
const CALLS: usize = 100;

/// Runs a consensus policy on recorded ballots, in the sandbox, and shows what it decides.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The component.
    file: PathBuf,
    /// A JSON file of ballots; default: recorded ones.
    #[arg(long, value_name = "FILE")]
    ballots: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// The ballots for one place in an output.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    /// Drafters of the mode; those that did not answer have no ballot.
    drafters: u32,
    ballots: Vec<Recorded>,
}

#[derive(Debug, Deserialize)]
struct Recorded {
    drafter: u32,
    weight: f32,
    /// Token and probability.
    proposals: Vec<(u32, f32)>,
}

impl From<&Recorded> for Ballot {
    fn from(recorded: &Recorded) -> Self {
        let vote = |(token, probability): &(u32, f32)| Vote { token: *token, probability: *probability };
        Self {
            drafter: recorded.drafter,
            weight: recorded.weight,
            proposals: recorded.proposals.iter().map(vote).collect(),
        }
    }
}

impl Check {
    pub(crate) async fn run(self) -> Result<()> {
        let (library, inspected) = examined(&self.file).await?;
        if inspected.exports != "consensus-policy" {
            bail!(
                "{} exports `{}`; what is checked is a `consensus-policy`",
                self.file.display(),
                inspected.exports
            );
        }
        let text = match &self.ballots {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => RECORDED.to_owned(),
        };
        let cases: Vec<Case> = serde_json::from_str(&text).context("the ballots are not what is expected")?;
        let path = self.file.display().to_string();
        let slot: Arc<Slot<PolicyPlugin>> = library.load(&path, None).await?;
        let policy = slot.current();
        let mut rows = Vec::new();
        for case in &cases {
            rows.push(ruled(&policy, case).await);
        }
        let failed = rows.iter().filter(|row| row["error"].is_string()).count();
        let memory = policy.memory();
        if self.json {
            println!("{:#}", json!({"plugin": inspected, "memory": memory, "rulings": rows}));
        } else {
            println!("{}, {} bytes, SHA-256 {}", inspected.label, inspected.bytes, inspected.sha256);
            rows.iter().for_each(|row| println!("{}", line(row)));
            println!("memory {:.1} MiB", memory as f64 / f64::from(1 << 20));
        }
        if failed > 0 { bail!("{failed} of {} rulings failed", cases.len()) } else { Ok(()) }
    }
}

/// What the policy says, and how long that takes: the first call, and the usual one.
async fn ruled(policy: &PolicyPlugin, case: &Case) -> Value {
    let ballots: Vec<Ballot> = case.ballots.iter().map(Into::into).collect();
    let start = Instant::now();
    let ruling = policy.rule(&ballots, case.drafters).await;
    let first = start.elapsed();
    let ruling = match ruling {
        Ok(ruling) => ruling,
        Err(error) => return json!({"case": case.name, "error": error.to_string()}),
    };
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        if policy.rule(&ballots, case.drafters).await.is_ok() {
            times.push(start.elapsed());
        }
    }
    times.sort();
    let usual = times.get(times.len() / 2).copied().unwrap_or_default();
    let decided = match ruling {
        Ruling::Accept(tokens) => json!({"accept": tokens}),
        Ruling::Verify(paths) => json!({"verify": paths}),
        Ruling::Decode(tokens) => json!({"decode": tokens}),
    };
    json!({"case": case.name, "ruling": decided, "first_us": micros(first), "us": micros(usual)})
}

fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e8).round() / 100.0
}

fn line(row: &Value) -> String {
    let case = row["case"].as_str().unwrap_or_default();
    match row["error"].as_str() {
        Some(error) => format!("{case:<32} {error}"),
        None => format!("{case:<32} {:>8} us  {}", row["us"], row["ruling"]),
    }
}
