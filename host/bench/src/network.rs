//! A target on another machine, over links of growing delay. The other machine is a network namespace,
//! the link a proxy of our own that delays every byte and counts it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tightwad_netlab::{Machine, Proxy};
use tightwad_script::Factory;

use crate::contest::{Contest, Contestant, Lender, connected, lookup, model, stack};
use crate::prompts::{SETS, set};

/// A target on another machine, over links of growing delay.
#[derive(Debug, clap::Args)]
pub(crate) struct Network {
    /// The target, on the other machine.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// A drafter's model, on this machine.
    #[arg(long)]
    draft: Option<PathBuf>,
    /// Delays each way, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 2, 10, 40])]
    delays: Vec<u64>,
    /// Only this set: prose, or repetitive.
    #[arg(long)]
    set: Option<String>,
    /// Prompts of each set, at each delay.
    #[arg(long, default_value_t = 6)]
    prompts: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// 0: greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Threads of each machine: two that share cores must not have more than these.
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
        let there = SocketAddr::new(machine.address().into(), 7710);
        let _lender = self.lend(machine.command(&std::env::current_exe()?.display().to_string()), there)?;
        let link = Proxy::start(SocketAddr::new(machine.gateway().into(), 0), there).await?;
        for delay in &self.delays {
            link.faults().delay(Duration::from_millis(*delay));
            // New ones at each delay: what they learned at another one is of no use.
            let sets = SETS.into_iter().filter(|name| self.set.as_deref().is_none_or(|set| set == *name));
            for name in sets {
                let mut contestants = self.contestants(factory, &link).await?;
                let wire = || link.faults().bytes().0 + link.faults().bytes().1;
                let contest = Contest { tokens: self.tokens, temperature: self.temperature };
                for prompt in set(name, self.prompts) {
                    contest.round(&mut contestants, &[prompt], wire).await?;
                }
                self.report(name, *delay, &contestants);
            }
        }
        Ok(())
    }

    fn lend(&self, mut command: Command, there: SocketAddr) -> Result<Lender> {
        command.args(["node", "--quiet", "--token", "bench", "--context", "2048"]);
        command.args(["--listen", &there.to_string(), "--threads", &self.threads.to_string()]);
        command.arg("--model").arg(format!("target={}", self.model.display()));
        Ok(Lender(command.stderr(Stdio::null()).spawn()?))
    }

    async fn contestants(&self, factory: &dyn Factory, link: &Proxy) -> Result<Vec<Contestant>> {
        let plain = connected(factory, link.address(), Some("bench"), None).await?;
        let lookup = lookup(factory).await?;
        let each = stack(factory, &plain, lookup.clone(), json!({"fixed_draft": 0})).await?;
        let mut contestants = vec![
            Contestant::new("plain, streamed", plain.clone()),
            Contestant::new("plain, a call a token", each),
            Contestant::new("lookup", stack(factory, &plain, lookup, Value::Null).await?),
        ];
        if let Some(path) = &self.draft {
            let drafter = model(factory, path, Some(self.threads)).await?;
            for (name, overlap) in [("draft model", true), ("draft model, no overlap", false)] {
                let backend = stack(factory, &plain, drafter.clone(), json!({"overlap": overlap})).await?;
                contestants.push(Contestant::new(name, backend));
            }
        }
        Ok(contestants)
    }

    fn report(&self, set: &str, delay: u64, contestants: &[Contestant]) {
        let plain = contestants[0].took();
        if !self.json {
            let speed = f64::from(contestants[0].tokens) / plain.as_secs_f64();
            println!("{set}, {delay} ms each way: plain, streamed at {speed:.1} tokens/s");
        }
        for one in contestants {
            if self.json {
                let mut figures = one.json(set, plain);
                figures["delay_ms"] = json!(delay);
                println!("{figures}");
            } else {
                println!(
                    "  {:24} {:5.2}x  {:5.2}x a call a token, {:4.0} bytes a token, {:5} drafted, {:3.0} % accepted, {:5} wasted, {} answers differ",
                    one.name,
                    one.ratio(plain),
                    one.ratio(contestants[1].took()),
                    one.bytes_a_token(),
                    one.drafted,
                    100.0 * one.share(),
                    one.wasted,
                    one.different
                );
            }
        }
    }
}
