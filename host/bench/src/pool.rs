//! One model over workers, over links of growing delay: alone, and with speculation on top. Each worker is
//! a process on a machine of its own, a network namespace; each link a proxy that delays every byte.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tightwad_core::{PoolSpec, SharedBackend, Token, WorkerSpec};
use tightwad_modes::{KINDS, PlacementPlugin};
use tightwad_netlab::{Machine, Proxy};
use tightwad_pool::{Phase, Pooled, Pooling, Pools, memory_of};
use tightwad_sandbox::{Library, Limits, PluginEngine};
use tightwad_script::Factory;

use crate::contest::{Contest, Contestant, Folder, Lender, lookup, model, stack};
use crate::passes::{Passes, WORDS};
use crate::plot::{Line, plot};
use crate::prompts::{SETS, set};

/// One model over workers, over links of growing delay.
#[derive(Debug, clap::Args)]
pub(crate) struct Pool {
    /// The model.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// A drafter's model, on this machine.
    #[arg(long)]
    draft: Option<PathBuf>,
    /// Workers that share the layers.
    #[arg(long, default_value_t = 2)]
    workers: u8,
    /// Delays each way, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 2, 5, 10, 20])]
    delays: Vec<u64>,
    /// Only this set: prose, or repetitive.
    #[arg(long)]
    set: Option<String>,
    /// Prompts of each set, at each delay.
    #[arg(long, default_value_t = 4)]
    prompts: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 96)]
    tokens: u32,
    /// 0: greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Also measures fixed draft lengths, to know the best one in hindsight.
    #[arg(long, value_delimiter = ',', default_values_t = [2, 4, 8, 16])]
    fixed: Vec<u32>,
    /// Threads of each machine: those that share cores must not have more than these.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Writes a plot of the ratios over the delay.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Tokens a sequence may have, and sequences.
const CONTEXT: u32 = 2048;
const SLOTS: u32 = 2;
/// How long a worker may take to begin.
const STARTING: Duration = Duration::from_secs(30);

/// A worker behind its link; ends with the benchmark.
struct Worker {
    // Dropped first.
    _process: Lender,
    link: Proxy,
    _machine: Machine,
    _cache: Folder,
}

impl Pool {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        if !tightwad_netlab::available() {
            bail!("other machines are made of network namespaces, which need root and iproute2");
        }
        let lenders = self.lend().await?;
        for name in ["cold", "warm"] {
            let pool = self.pool(&lenders).await?;
            self.report_load(name, &pool);
            // The memory must be free again before the next one.
            pool.unload().await;
        }
        let mut lines: Vec<Line> = Vec::new();
        for delay in &self.delays {
            lenders.iter().for_each(|lender| lender.link.faults().delay(Duration::from_millis(*delay)));
            let pool = self.pool(&lenders).await?;
            self.at(*delay, factory, &pool, &lenders, &mut lines).await?;
            pool.unload().await;
        }
        if let Some(file) = &self.svg {
            let title = "speculation over a pool against the pool alone";
            plot(file, title, "delay each way, ms", "times as fast", &lines)?;
        }
        Ok(())
    }

    /// Everything at one delay.
    async fn at(
        &self,
        delay: u64,
        factory: &dyn Factory,
        pool: &Arc<Pooling>,
        lenders: &[Worker],
        lines: &mut Vec<Line>,
    ) -> Result<()> {
        let target: SharedBackend = Arc::new(Pooled(pool.clone()));
        let passes = Passes::measure(&target, WORDS).await?;
        if self.json {
            println!("{}", json!({"delay_ms": delay, "passes": passes.json()}));
        } else {
            println!("{delay} ms each way: {passes}");
        }
        for name in SETS.into_iter().filter(|name| self.set.as_deref().is_none_or(|set| set == *name)) {
            let mut contestants = self.contestants(factory, &target).await?;
            let wire = || lenders.iter().map(|one| one.link.faults().bytes()).map(|(a, b)| a + b).sum();
            let contest = Contest { tokens: self.tokens, temperature: self.temperature };
            for prompt in set(name, self.prompts) {
                contest.round(&mut contestants, &[prompt], wire).await?;
            }
            self.report(name, delay, &contestants);
            note(lines, name, delay, &contestants);
        }
        Ok(())
    }

    fn spec(&self, workers: Vec<WorkerSpec>) -> PoolSpec {
        PoolSpec {
            path: self.model.clone(),
            name: "pool".to_owned(),
            workers,
            local: false,
            context: Some(CONTEXT),
            slots: SLOTS,
            queue: None,
            threads: Some(self.threads),
            plugin: None,
            pins: Vec::new(),
            ttl: None,
            pinned: false,
            on_demand: false,
            patience: Duration::from_secs(60),
        }
    }

    /// Workers with so much memory that all are needed.
    async fn lend(&self) -> Result<Vec<Worker>> {
        let memory = memory_of(&self.spec(Vec::new())).map_err(|error| anyhow!(error.to_string()))?;
        let each = memory.each_of(u64::from(self.workers.max(1)));
        let mut lenders = Vec::new();
        for number in 0..self.workers.max(1) {
            let machine = Machine::new(number).context("cannot make a network namespace")?;
            let there = SocketAddr::new(machine.address().into(), 7711);
            let cache = Folder::new(&number.to_string())?;
            let mut command = machine.command(&std::env::current_exe()?.display().to_string());
            command.args(["worker", "--token", "bench", "--listen", &there.to_string()]);
            command.args(["--threads", &self.threads.to_string(), "--memory", &each.to_string()]);
            command.arg("--cache").arg(&cache.0);
            let process = Lender(command.stderr(Stdio::null()).spawn()?);
            let link = Proxy::start(SocketAddr::new(machine.gateway().into(), 0), there).await?;
            lenders.push(Worker { _process: process, link, _machine: machine, _cache: cache });
        }
        Ok(lenders)
    }

    async fn pool(&self, lenders: &[Worker]) -> Result<Arc<Pooling>> {
        let worker = |lender: &Worker| {
            WorkerSpec::new(&lender.link.address().to_string(), Token::new("bench").ok().as_ref(), None)
        };
        let spec = self.spec(lenders.iter().filter_map(worker).collect());
        let engine =
            Arc::new(PluginEngine::new(None, Limits::default()).map_err(|error| anyhow!("{error:#}"))?);
        let library = Library::new(engine, KINDS, Vec::new());
        let plugin = library.load::<PlacementPlugin>("pooling", None).await?.current();
        let pools: Arc<Pools> = Arc::default();
        let start = Instant::now();
        loop {
            match pools.start(spec.clone(), plugin.clone()).await {
                // The workers have only just begun.
                Err(_) if start.elapsed() < STARTING => tokio::time::sleep(Duration::from_millis(200)).await,
                made => return made.map_err(|error| anyhow!(error.to_string())),
            }
        }
    }

    async fn contestants(&self, factory: &dyn Factory, plain: &SharedBackend) -> Result<Vec<Contestant>> {
        let lookup = lookup(factory).await?;
        let mut contestants = vec![
            Contestant::new("pool alone", plain.clone()),
            Contestant::new("lookup", stack(factory, plain, lookup.clone(), Value::Null).await?),
        ];
        for length in &self.fixed {
            let backend = stack(factory, plain, lookup.clone(), json!({"fixed_draft": length})).await?;
            contestants.push(Contestant::new(&format!("lookup, always {length}"), backend));
        }
        if let Some(path) = &self.draft {
            let drafter = model(factory, path, Some(self.threads)).await?;
            let backend = stack(factory, plain, drafter.clone(), Value::Null).await?;
            contestants.push(Contestant::new("draft model", backend));
            for length in &self.fixed {
                let backend = stack(factory, plain, drafter.clone(), json!({"fixed_draft": length})).await?;
                contestants.push(Contestant::new(&format!("draft model, always {length}"), backend));
            }
        }
        Ok(contestants)
    }

    fn report_load(&self, name: &str, pool: &Pooling) {
        let Phase::Ready(running) = pool.phase() else { return };
        let sum = |of: fn(&tightwad_tunnel::Meter) -> &std::sync::atomic::AtomicU64| -> u64 {
            let one = |(_, meter): &(String, Arc<tightwad_tunnel::Meter>)| {
                of(meter).load(std::sync::atomic::Ordering::Relaxed)
            };
            running.meters.iter().map(one).sum()
        };
        let (sent, known) = (sum(|meter| &meter.sent), sum(|meter| &meter.known));
        let seconds = running.loading.as_secs_f64();
        if self.json {
            println!(
                "{}",
                json!({"load": name, "seconds": seconds, "sent": sent, "known": known, "parts": running.parts})
            );
            return;
        }
        println!(
            "{name} load: {seconds:.2} s, {:.1} MB sent, {:.1} MB known already",
            sent as f64 / 1e6,
            known as f64 / 1e6
        );
        if name == "cold" {
            for part in &running.parts {
                println!("  {}: {} layers from {}", part.machine, part.layers, part.first);
            }
        }
    }

    fn report(&self, set: &str, delay: u64, contestants: &[Contestant]) {
        let plain = contestants[0].took();
        if !self.json {
            let speed = f64::from(contestants[0].tokens) / plain.as_secs_f64();
            println!("{set}, {delay} ms each way: the pool alone at {speed:.1} tokens/s");
        }
        for one in contestants {
            if self.json {
                let mut figures = one.json(set, plain);
                figures["delay_ms"] = json!(delay);
                println!("{figures}");
                continue;
            }
            println!(
                "  {:24} {:5.2}x  {:6.0} bytes a token, {:5} drafted, {:3.0} % accepted, {:4} wasted, {} answers differ",
                one.name,
                one.ratio(plain),
                one.bytes_a_token(),
                one.drafted,
                100.0 * one.share(),
                one.wasted,
                one.different
            );
        }
    }
}

/// Adds the ratios at one delay to the lines of the plot.
fn note(lines: &mut Vec<Line>, set: &str, delay: u64, contestants: &[Contestant]) {
    let plain = contestants[0].took();
    for one in contestants.iter().filter(|one| !one.name.contains("always")) {
        let name = format!("{set}: {}", one.name);
        let point = (delay as f64, one.ratio(plain));
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name, points: vec![point] }),
        }
    }
}
