//! Attacks a host, and measures the speed that an honest client keeps.

mod attackers;
mod hostile_server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::attack::attackers::{Attack, Attackers};
use crate::attack::hostile_server::HostileServer;
use crate::contest::Folder;
use crate::local_process::LocalProcess;
use crate::prompts::prose;

/// Attacks a host, and measures the speed that an honest client keeps.
#[derive(Debug, clap::Args)]
pub(crate) struct Benchmark {
    /// GGUF file of the model.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// Driver of the attack `looping-plugin`: it never returns.
    #[arg(long, default_value = "plugins/fixtures/dist/loop-forever.wasm")]
    driver: PathBuf,
    /// Measures only this attack. Repeatable.
    #[arg(long, value_enum)]
    attack: Vec<Attack>,
    /// Tokens of one honest answer.
    #[arg(long, default_value_t = 64)]
    tokens: u32,
    /// Honest answers per measurement.
    #[arg(long, default_value_t = 8)]
    answers: usize,
    /// Measurements with and without the attack, in turn. The median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// The part of its fair share that an honest client must keep.
const MIN_KEPT_SHARE: f64 = 0.9;
/// Time that an attack gets before the measurement.
const RAMP_UP_TIME: Duration = Duration::from_secs(2);

impl Benchmark {
    pub(crate) async fn run(self) -> Result<()> {
        let folder = Folder::new("attack")?;
        let hostile = HostileServer::start().await?;
        let script = folder.0.join("attack.lua");
        std::fs::write(&script, self.script(&hostile)?)?;
        let run = ["run", &script.display().to_string()];
        let host = LocalProcess::start(&run, &folder.0.join("host.log"))?;
        let honest = Honest { client: tightwad_net::machine_client().build()?, host: &host, bench: &self };
        honest.measure().await?;
        let attacks =
            if self.attack.is_empty() { Attack::value_variants().to_vec() } else { self.attack.clone() };
        let mut failed = Vec::new();
        for attack in attacks {
            let (before, during) = self.measure(attack, &honest, &host).await?;
            let (kept, admitted) = (during / before, attack.admitted());
            let share = MIN_KEPT_SHARE / (admitted as f64 + 1.0);
            let name =
                attack.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            println!(
                "{name}: {before:.1} tokens/s before, {during:.1} during the attack: {kept:.2} (at least {share:.2} with {admitted} admitted requests)"
            );
            if kept < share {
                failed.push(name);
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            bail!("the honest client is too slow during {}", failed.join(", "))
        }
    }

    /// The median speeds of the honest client without and with the attack, in tokens per second.
    async fn measure(&self, attack: Attack, honest: &Honest<'_>, host: &LocalProcess) -> Result<(f64, f64)> {
        let (mut before, mut during) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            before.push(honest.measure().await?);
            let attackers = Attackers::start(attack, host.address)?;
            tokio::time::sleep(RAMP_UP_TIME).await;
            during.push(honest.measure().await?);
            attackers.stop().await;
        }
        Ok((median(before), median(during)))
    }

    fn script(&self, hostile: &HostileServer) -> Result<String> {
        Ok(format!(
            r#"local tw = require "tightwad"
local plain = tw.model {{ path = {model:?}, name = "plain", context = 1024, slots = 12 }}
return tw.serve {{ models = {{
  plain = plain,
  frozen = function(req) return tostring(("a"):rep(40):find((".-"):rep(14) .. "b")) end,
  looping = tw.speculation {{ target = plain, drafters = tw.lookup {{}}, driver = {driver:?} }},
  hostile = tw.openai {{ url = "http://{hostile}", model = "hostile" }},
}} }}
"#,
            model = self.model.canonicalize()?,
            driver = self.driver.canonicalize()?,
            hostile = hostile.address(),
        ))
    }
}

/// The honest client.
struct Honest<'a> {
    client: reqwest::Client,
    host: &'a LocalProcess,
    bench: &'a Benchmark,
}

impl Honest<'_> {
    /// Tokens per second over the answers of one measurement.
    async fn measure(&self) -> Result<f64> {
        let (start, mut tokens) = (Instant::now(), 0);
        for question in 0..self.bench.answers {
            let body = json!({
                "model": "plain", "messages": [{"role": "user", "content": prose(question)}],
                "max_tokens": self.bench.tokens, "temperature": 1, "seed": 1,
            });
            let request = self.client.post(self.host.url("/v1/chat/completions")).json(&body);
            let response = request.send().await.context("the host does not answer the honest client")?;
            let answer: Value = response.error_for_status()?.json().await?;
            let count = answer["usage"]["completion_tokens"].as_u64();
            tokens += count.context("the answer has no `completion_tokens`")?;
        }
        Ok(tokens as f64 / start.elapsed().as_secs_f64())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
