//! Runs a host for a long time under load and faults. Answers must stay exact, and memory, handles and threads flat.

mod clients;
mod faults;
mod gauges;
mod lab;
mod report;
mod run;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::soak::clients::{Asker, Expected};
use crate::soak::faults::Faults;
use crate::soak::gauges::Gauges;
use crate::soak::lab::Lab;
use crate::soak::report::Report;
use crate::soak::run::Run;

/// Runs a host for a long time under load and faults.
#[derive(Debug, clap::Args)]
pub(crate) struct Soak {
    /// GGUF file of the model.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// Consensus policy that is swapped during the run.
    #[arg(long, default_value = "plugins/fixtures/dist/policy-first.wasm")]
    policy: PathBuf,
    /// Duration in minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Seconds between two faults.
    #[arg(long, default_value_t = 7.0)]
    fault_interval: f64,
}

/// Interval at which the gauges of the processes are read.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);
/// The models whose answers must equal those of `plain`.
const EXACT_MODELS: [&str; 5] = ["plain", "fast", "piped", "away", "pool"];

impl Soak {
    pub(crate) async fn run(self) -> Result<()> {
        let mut lab = Lab::start(&self.model, &self.policy)?;
        let run = Arc::new(Run {
            client: tightwad_net::machine_client().build()?,
            url: lab.host.url("/v1/chat/completions"),
            stopped: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            disconnects: AtomicU64::new(0),
            stalled_readers: AtomicU64::new(0),
        });
        let expected = Arc::new(Expected::ask(&run).await?);
        let mut clients = JoinSet::new();
        for model in EXACT_MODELS {
            clients.spawn(Asker::new(run.clone(), model, expected.clone()).run());
        }
        clients.spawn(clients::approximate(run.clone()));
        clients.spawn(clients::disconnect(run.clone()));
        clients.spawn(clients::stall(run.clone(), lab.host.address));
        let report = self.watch(&mut lab, &run, &mut clients).await?;
        run.stopped.store(true, Ordering::Relaxed);
        while let Some(client) = clients.join_next().await {
            client??;
        }
        report.print(&run);
        report.check()
    }

    /// Makes faults and reads the gauges until the time is over. A client that ends early has found a wrong answer.
    async fn watch(
        &self,
        lab: &mut Lab,
        run: &Arc<Run>,
        clients: &mut JoinSet<Result<()>>,
    ) -> Result<Report> {
        let duration = Duration::from_secs_f64(60.0 * self.minutes);
        let mut faults = Faults::new(&self.policy, Duration::from_secs_f64(self.fault_interval));
        let (start, mut report) = (Instant::now(), Report::default());
        while start.elapsed() < duration {
            tokio::select! {
                ended = clients.join_next() => {
                    if let Some(ended) = ended {
                        ended??;
                    }
                    bail!("a client ended early. The logs are in {}.", lab.folder.0.display());
                }
                () = sleep(GAUGE_INTERVAL) => {}
            }
            faults.make_due(lab).await?;
            let Some(id) = lab.host.id() else { bail!("the host has no process") };
            report.add(Gauges::read(id)?);
            if report.is_minute_over() {
                let answers = run.answers.load(Ordering::Relaxed);
                println!("{:.0} s: {answers} answers, {}", start.elapsed().as_secs_f64(), report.last());
            }
        }
        report.faults = faults.into_counts();
        Ok(report)
    }
}
