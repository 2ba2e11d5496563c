//! Measures a target on another machine, over links of growing delay. The other machine is a network namespace. The link
//! is a proxy that delays and counts every byte.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tightwad_netlab::{Machine, Proxy};
use tightwad_script::Factory;

use crate::contest::{
    ChildProcess, Contest, Contestant, connect, encrypted_url, load_model, lookup_backend, stack,
};
use crate::prompts::{SETS, prompt_set};

/// Measures a target on another machine, over links of growing delay.
#[derive(Debug, clap::Args)]
pub(crate) struct Network {
    /// GGUF file of the target, on the other machine.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// GGUF file of a drafter, on this machine.
    #[arg(long)]
    drafter: Option<PathBuf>,
    /// Delays each way, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 2, 10, 40])]
    delays: Vec<u64>,
    /// Measures only this set of prompts: prose or repetitive.
    #[arg(long)]
    set: Option<String>,
    /// Number of prompts per set and delay.
    #[arg(long, default_value_t = 6)]
    prompts: usize,
    /// Tokens per answer.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Sampling temperature. 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Threads of each machine. Machines that share cores must not have more threads than cores.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Network {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        if !tightwad_netlab::available() {
            bail!("other machines are made of network namespaces, which need root and iproute2");
        }
        let machine = Machine::new(0).context("cannot make a network namespace")?;
        let node_address = SocketAddr::new(machine.address().into(), 7710);
        let _node =
            self.start_node(machine.command(&std::env::current_exe()?.display().to_string()), node_address)?;
        let link = Proxy::start(SocketAddr::new(machine.gateway().into(), 0), node_address).await?;
        for delay in &self.delays {
            link.faults().delay(Duration::from_millis(*delay));
            // The costs that a driver measures depend on the delay, so each delay gets new contestants.
            let sets = SETS.into_iter().filter(|name| self.set.as_deref().is_none_or(|set| set == *name));
            for name in sets {
                let mut contestants = self.contestants(factory, &link).await?;
                let link_bytes = || link.faults().bytes().0 + link.faults().bytes().1;
                let contest = Contest { tokens: self.tokens, temperature: self.temperature };
                for prompt in prompt_set(name, self.prompts) {
                    contest.round(&mut contestants, &[prompt], link_bytes).await?;
                }
                self.report(name, *delay, &contestants);
            }
        }
        Ok(())
    }

    fn start_node(&self, mut command: Command, node_address: SocketAddr) -> Result<ChildProcess> {
        command.args(["node", "--no-announce", "--token", "bench", "--context", "2048", "--insecure"]);
        command.args(["--listen", &node_address.to_string(), "--threads", &self.threads.to_string()]);
        command.arg("--model").arg(format!("target={}", self.model.display()));
        Ok(ChildProcess(command.stderr(Stdio::null()).spawn()?))
    }

    async fn contestants(&self, factory: &dyn Factory, link: &Proxy) -> Result<Vec<Contestant>> {
        let plain = connect(factory, encrypted_url(link.address())?, Some("bench"), None).await?;
        let clear = connect(factory, format!("http://{}", link.address()), Some("bench"), None).await?;
        let lookup = lookup_backend(factory, 0).await?;
        let per_token = stack(factory, &plain, lookup.clone(), json!({"fixed_draft": 0})).await?;
        let mut contestants = vec![
            Contestant::new("plain, streamed", plain.clone()),
            Contestant::new("plain, one call per token", per_token),
            Contestant::new("plain, not encrypted", clear),
            Contestant::new("lookup", stack(factory, &plain, lookup, Value::Null).await?),
        ];
        if let Some(path) = &self.drafter {
            let drafter = load_model(factory, path, Some(self.threads)).await?;
            for (name, overlap) in [("draft model", true), ("draft model, no overlap", false)] {
                let backend = stack(factory, &plain, drafter.clone(), json!({"overlap": overlap})).await?;
                contestants.push(Contestant::new(name, backend));
            }
        }
        Ok(contestants)
    }

    fn report(&self, set: &str, delay: u64, contestants: &[Contestant]) {
        let plain = contestants[0].total_time();
        if !self.json {
            let speed = f64::from(contestants[0].tokens) / plain.as_secs_f64();
            println!("{set}, {delay} ms each way: plain, streamed at {speed:.1} tokens/s");
        }
        for contestant in contestants {
            if self.json {
                let mut figures = contestant.json(set, plain);
                figures["delay_ms"] = json!(delay);
                println!("{figures}");
            } else {
                println!(
                    "  {:24} {:5.2}x  {:5.2}x one call per token, {:4.0} bytes per token, {:5} drafted, {:3.0} % accepted, {:5} wasted, {} answers differ",
                    contestant.name,
                    contestant.ratio(plain),
                    contestant.ratio(contestants[1].total_time()),
                    contestant.bytes_per_token(),
                    contestant.drafted,
                    100.0 * contestant.acceptance_rate(),
                    contestant.wasted,
                    contestant.different_answers
                );
            }
        }
    }
}
