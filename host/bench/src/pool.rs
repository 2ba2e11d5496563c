//! Measures a pool over links of growing delay, alone and with speculation. Each worker runs in its own network
//! namespace. Each link is a proxy that delays every byte.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tightwad_core::{PoolSpec, SharedBackend, Token, WorkerSpec};
use tightwad_modes::{KINDS, PlacementPolicy};
use tightwad_netlab::{Machine, Proxy};
use tightwad_pool::{Phase, PoolBackend, Pools, pool_memory};
use tightwad_sandbox::{Library, Limits, PluginEngine};
use tightwad_script::Factory;

use crate::contest::{
    ChildProcess, Contest, Contestant, Folder, encrypted_url, load_model, lookup_backend, stack,
};
use crate::passes::{DEFAULT_PROMPT_WORDS, Passes};
use crate::plot::{Line, plot};
use crate::prompts::{SETS, prompt_set};

/// Measures a pool over links of growing delay, alone and with speculation.
#[derive(Debug, clap::Args)]
pub(crate) struct Pool {
    /// GGUF file of the model.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// GGUF file of a drafter, on this machine.
    #[arg(long)]
    drafter: Option<PathBuf>,
    /// Number of workers.
    #[arg(long, default_value_t = 2)]
    workers: u8,
    /// Delays each way, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 2, 5, 10, 20])]
    delays: Vec<u64>,
    /// Measures only this set of prompts: prose or repetitive.
    #[arg(long)]
    set: Option<String>,
    /// Number of prompts per set and delay.
    #[arg(long, default_value_t = 4)]
    prompts: usize,
    /// Tokens per answer.
    #[arg(long, default_value_t = 96)]
    tokens: u32,
    /// Sampling temperature. 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Also measures these fixed draft lengths, to find the best one in hindsight.
    #[arg(long, value_delimiter = ',', default_values_t = [2, 4, 8, 16])]
    fixed_draft_tokens: Vec<u32>,
    /// Threads of each machine. Machines that share cores must not have more threads than cores.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// File for a plot of the ratios over the delay, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Context length of the pool.
const CONTEXT_TOKENS: u32 = 2048;
/// Comparisons of pools with and without encryption, per delay.
const ENCRYPTION_ROUNDS: u32 = 6;
/// Slots of the pool.
const SLOTS: u32 = 2;
/// Greatest time that a worker takes to start.
const WORKER_START_TIMEOUT: Duration = Duration::from_secs(30);

/// A worker behind its link.
struct Worker {
    // Fields drop in this order: the process ends first.
    _process: ChildProcess,
    link: Proxy,
    _machine: Machine,
    _cache: Folder,
}

impl Pool {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        if !tightwad_netlab::available() {
            bail!("other machines are made of network namespaces, which need root and iproute2");
        }
        let workers = self.start_workers().await?;
        for name in ["cold", "warm"] {
            let pool = self.start_pool(&workers, true).await?;
            self.report_load(name, &pool);
            // The workers must have freed the memory before the next pool starts.
            pool.unload().await;
        }
        let mut lines: Vec<Line> = Vec::new();
        for delay in &self.delays {
            workers.iter().for_each(|worker| worker.link.faults().delay(Duration::from_millis(*delay)));
            let pool = self.start_pool(&workers, true).await?;
            self.measure_delay(*delay, factory, &pool, &workers, &mut lines).await?;
            pool.unload().await;
            self.compare_encryption(*delay, &workers).await?;
        }
        if let Some(file) = &self.svg {
            let title = "speculation over a pool against the pool alone";
            plot(file, title, "delay each way, ms", "times as fast", &lines)?;
        }
        Ok(())
    }

    /// Measures one delay.
    async fn measure_delay(
        &self,
        delay: u64,
        factory: &dyn Factory,
        pool: &Arc<tightwad_pool::Pool>,
        workers: &[Worker],
        lines: &mut Vec<Line>,
    ) -> Result<()> {
        let target: SharedBackend = Arc::new(PoolBackend(pool.clone()));
        let passes = Passes::measure(&target, DEFAULT_PROMPT_WORDS).await?;
        if self.json {
            println!("{}", json!({"delay_ms": delay, "passes": passes.json()}));
        } else {
            println!("{delay} ms each way: {passes}");
        }
        for name in SETS.into_iter().filter(|name| self.set.as_deref().is_none_or(|set| set == *name)) {
            let mut contestants = self.contestants(factory, &target).await?;
            let link_bytes =
                || workers.iter().map(|worker| worker.link.faults().bytes()).map(|(a, b)| a + b).sum();
            let contest = Contest { tokens: self.tokens, temperature: self.temperature };
            for prompt in prompt_set(name, self.prompts) {
                contest.round(&mut contestants, &[prompt], link_bytes).await?;
            }
            self.report(name, delay, &contestants);
            add_points(lines, name, delay, &contestants);
        }
        Ok(())
    }

    /// Compares pools with and without encryption, in turn. The workers' memory holds one pool at a time.
    async fn compare_encryption(&self, delay: u64, workers: &[Worker]) -> Result<()> {
        let (mut load_times, mut answer_times) = ([Duration::ZERO; 2], [Duration::ZERO; 2]);
        for round in 0..ENCRYPTION_ROUNDS {
            let encrypted_first = round % 2 == 1;
            for encrypted in [encrypted_first, !encrypted_first] {
                let pool = self.start_pool(workers, encrypted).await?;
                if let Phase::Ready(running) = pool.phase() {
                    load_times[usize::from(encrypted)] += running.load_time;
                }
                let target: SharedBackend = Arc::new(PoolBackend(pool.clone()));
                let mut contestants = [Contestant::new("pool alone", target)];
                let contest = Contest { tokens: self.tokens, temperature: self.temperature };
                for prompt in prompt_set(SETS[0], self.prompts) {
                    contest.round(&mut contestants, &[prompt], || 0).await?;
                }
                answer_times[usize::from(encrypted)] += contestants[0].total_time();
                pool.unload().await;
            }
        }
        let ratio = |times: [Duration; 2]| times[0].as_secs_f64() / times[1].as_secs_f64();
        let (load, answers) = (ratio(load_times), ratio(answer_times));
        if self.json {
            println!("{}", json!({"delay_ms": delay, "encrypted_load": load, "encrypted_answers": answers}));
        } else {
            println!(
                "{delay} ms each way, encrypted against plain: load {load:.2}x, answers {answers:.2}x as fast"
            );
        }
        Ok(())
    }

    fn spec(&self, workers: Vec<WorkerSpec>) -> PoolSpec {
        PoolSpec {
            path: self.model.clone(),
            name: "pool".to_owned(),
            workers,
            include_host: false,
            context: Some(CONTEXT_TOKENS),
            slots: SLOTS,
            max_queue: None,
            threads: Some(self.threads),
            policy: None,
            override_tensors: Vec::new(),
            idle_timeout: None,
            keep_loaded: false,
            on_demand: false,
            wait_timeout: Duration::from_secs(60),
        }
    }

    /// Starts the workers. A worker lends so little memory that the pool needs all workers.
    async fn start_workers(&self) -> Result<Vec<Worker>> {
        let memory = pool_memory(&self.spec(Vec::new())).map_err(|error| anyhow!(error.to_string()))?;
        let max_memory = memory.per_machine(u64::from(self.workers.max(1)));
        let mut workers = Vec::new();
        for number in 0..self.workers.max(1) {
            let machine = Machine::new(number).context("cannot make a network namespace")?;
            let address = SocketAddr::new(machine.address().into(), 7711);
            let cache = Folder::new(&number.to_string())?;
            let mut command = machine.command(&std::env::current_exe()?.display().to_string());
            command.args(["worker", "--token", "bench", "--insecure", "--listen", &address.to_string()]);
            command.args(["--threads", &self.threads.to_string(), "--max-memory", &max_memory.to_string()]);
            command.arg("--cache-dir").arg(&cache.0);
            let process = ChildProcess(command.stderr(Stdio::null()).spawn()?);
            let link = Proxy::start(SocketAddr::new(machine.gateway().into(), 0), address).await?;
            workers.push(Worker { _process: process, link, _machine: machine, _cache: cache });
        }
        Ok(workers)
    }

    async fn start_pool(&self, workers: &[Worker], encrypted: bool) -> Result<Arc<tightwad_pool::Pool>> {
        let worker_spec = |worker: &Worker| {
            let address = worker.link.address();
            let url = if encrypted { encrypted_url(address)? } else { format!("http://{address}") };
            WorkerSpec::new(&url, Token::new("bench").ok().as_ref(), None).context("the address is not valid")
        };
        let spec = self.spec(workers.iter().map(worker_spec).collect::<Result<_>>()?);
        let engine =
            Arc::new(PluginEngine::new(None, Limits::default()).map_err(|error| anyhow!("{error:#}"))?);
        let library = Library::new(engine, KINDS, Vec::new());
        let plugin = library.load::<PlacementPolicy>("pooling", None).await?.current();
        let pools: Arc<Pools> = Arc::default();
        let start = Instant::now();
        loop {
            match pools.start(spec.clone(), plugin.clone()).await {
                // The workers have just started.
                Err(_) if start.elapsed() < WORKER_START_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(200)).await
                }
                result => return result.map_err(|error| anyhow!(error.to_string())),
            }
        }
    }

    async fn contestants(&self, factory: &dyn Factory, target: &SharedBackend) -> Result<Vec<Contestant>> {
        let lookup = lookup_backend(factory, 0).await?;
        let mut contestants = vec![
            Contestant::new("pool alone", target.clone()),
            Contestant::new("lookup", stack(factory, target, lookup.clone(), Value::Null).await?),
        ];
        for length in &self.fixed_draft_tokens {
            let backend = stack(factory, target, lookup.clone(), json!({"fixed_draft": length})).await?;
            contestants.push(Contestant::new(&format!("lookup, always {length}"), backend));
        }
        if let Some(path) = &self.drafter {
            let drafter = load_model(factory, path, Some(self.threads)).await?;
            let backend = stack(factory, target, drafter.clone(), Value::Null).await?;
            contestants.push(Contestant::new("draft model", backend));
            for length in &self.fixed_draft_tokens {
                let backend = stack(factory, target, drafter.clone(), json!({"fixed_draft": length})).await?;
                contestants.push(Contestant::new(&format!("draft model, always {length}"), backend));
            }
        }
        Ok(contestants)
    }

    fn report_load(&self, name: &str, pool: &tightwad_pool::Pool) {
        let Phase::Ready(running) = pool.phase() else { return };
        let sum = |counter: fn(&tightwad_tunnel::TrafficStats) -> &std::sync::atomic::AtomicU64| -> u64 {
            let bytes = |(_, stats): &(String, Arc<tightwad_tunnel::TrafficStats>)| {
                counter(stats).load(std::sync::atomic::Ordering::Relaxed)
            };
            running.links.iter().map(bytes).sum()
        };
        let (sent, cached) = (sum(|stats| &stats.sent_bytes), sum(|stats| &stats.cached_bytes));
        let seconds = running.load_time.as_secs_f64();
        if self.json {
            println!(
                "{}",
                json!({"load": name, "seconds": seconds, "sent_bytes": sent, "cached_bytes": cached,
                       "assignments": running.assignments})
            );
            return;
        }
        println!(
            "{name} load: {seconds:.2} s, {:.1} MB sent, {:.1} MB cached on the workers",
            sent as f64 / 1e6,
            cached as f64 / 1e6
        );
        if name == "cold" {
            for assignment in &running.assignments {
                println!("  {}: {} layers from {}", assignment.machine, assignment.layers, assignment.first);
            }
        }
    }

    fn report(&self, set: &str, delay: u64, contestants: &[Contestant]) {
        let plain = contestants[0].total_time();
        if !self.json {
            let speed = f64::from(contestants[0].tokens) / plain.as_secs_f64();
            println!("{set}, {delay} ms each way: the pool alone at {speed:.1} tokens/s");
        }
        for contestant in contestants {
            if self.json {
                let mut figures = contestant.json(set, plain);
                figures["delay_ms"] = json!(delay);
                println!("{figures}");
                continue;
            }
            println!(
                "  {:24} {:5.2}x  {:6.0} bytes per token, {:5} drafted, {:3.0} % accepted, {:4} wasted, {} answers differ",
                contestant.name,
                contestant.ratio(plain),
                contestant.bytes_per_token(),
                contestant.drafted,
                100.0 * contestant.acceptance_rate(),
                contestant.wasted,
                contestant.different_answers
            );
        }
    }
}

/// Adds the ratios at one delay to the lines of the plot.
fn add_points(lines: &mut Vec<Line>, set: &str, delay: u64, contestants: &[Contestant]) {
    let plain = contestants[0].total_time();
    for contestant in contestants.iter().filter(|contestant| !contestant.name.contains("always")) {
        let name = format!("{set}: {}", contestant.name);
        let point = (delay as f64, contestant.ratio(plain));
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name, points: vec![point] }),
        }
    }
}
