//! `tightwad plugin check`: runs a consensus policy on recorded ballots.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tightwad_modes::{Ballot, BallotProposal, ConsensusPolicy, Ruling};
use tightwad_sandbox::ReloadablePlugin;

use crate::cli::plugin::inspect_file::inspect_file;

/// Ballots of five re-quantized copies of SmolLM2 at temperature 0.8, for positions of an output of SmolLM2.
const RECORDED_BALLOTS: &str = include_str!("ballots.json");
/// The number of timed calls per case.
const TIMED_CALLS: usize = 100;

/// Runs a consensus policy on recorded ballots, in the sandbox, and prints its rulings.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The component.
    file: PathBuf,
    /// JSON file of ballots. Default: ballots of SmolLM2, which are part of this program.
    #[arg(long, value_name = "FILE")]
    ballots: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// The ballots for one position of an output.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    /// The number of drafters of the mode. A late drafter has no ballot.
    drafters: u32,
    ballots: Vec<RecordedBallot>,
}

#[derive(Debug, Deserialize)]
struct RecordedBallot {
    drafter: u32,
    weight: f32,
    /// Tokens and their probabilities.
    proposals: Vec<(u32, f32)>,
}

impl From<&RecordedBallot> for Ballot {
    fn from(recorded: &RecordedBallot) -> Self {
        let proposal =
            |(token, probability): &(u32, f32)| BallotProposal { token: *token, probability: *probability };
        Self {
            drafter: recorded.drafter,
            weight: recorded.weight,
            proposals: recorded.proposals.iter().map(proposal).collect(),
        }
    }
}

impl Check {
    pub(crate) async fn run(self) -> Result<()> {
        let (library, inspected) = inspect_file(&self.file).await?;
        if inspected.exports != "consensus-policy" {
            bail!(
                "{} exports `{}`. This command checks a `consensus-policy`.",
                self.file.display(),
                inspected.exports
            );
        }
        let text = match &self.ballots {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => RECORDED_BALLOTS.to_owned(),
        };
        let cases: Vec<Case> = serde_json::from_str(&text).context("cannot read the ballots")?;
        let path = self.file.display().to_string();
        let slot: Arc<ReloadablePlugin<ConsensusPolicy>> = library.load(&path, None).await?;
        let policy = slot.current();
        let mut rows = Vec::new();
        for case in &cases {
            rows.push(run_case(&policy, case).await);
        }
        let failed = rows.iter().filter(|row| row["error"].is_string()).count();
        let memory = policy.memory_bytes();
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

/// Returns the policy's ruling on a case, the time of the first call, and the median of later calls, as JSON.
async fn run_case(policy: &ConsensusPolicy, case: &Case) -> Value {
    let ballots: Vec<Ballot> = case.ballots.iter().map(Into::into).collect();
    let start = Instant::now();
    let ruling = policy.rule(&ballots, case.drafters).await;
    let first_time = start.elapsed();
    let ruling = match ruling {
        Ok(ruling) => ruling,
        Err(error) => return json!({"case": case.name, "error": error.to_string()}),
    };
    let mut times = Vec::with_capacity(TIMED_CALLS);
    for _ in 0..TIMED_CALLS {
        let start = Instant::now();
        if policy.rule(&ballots, case.drafters).await.is_ok() {
            times.push(start.elapsed());
        }
    }
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let ruling_json = match ruling {
        Ruling::Accept(tokens) => json!({"accept": tokens}),
        Ruling::Verify(paths) => json!({"verify": paths}),
        Ruling::Decode(tokens) => json!({"decode": tokens}),
    };
    json!({"case": case.name, "ruling": ruling_json, "first_us": microseconds(first_time), "us": microseconds(median)})
}

fn microseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e8).round() / 100.0
}

fn line(row: &Value) -> String {
    let case = row["case"].as_str().unwrap_or_default();
    match row["error"].as_str() {
        Some(error) => format!("{case:<32} {error}"),
        None => format!("{case:<32} {:>8} us  {}", row["us"], row["ruling"]),
    }
}
