//! Compares every consensus rule with speculation and with the target alone. Each drafter is a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tightwad_core::{OnFailure, PluginSpec, Prompt, SharedBackend};
use tightwad_netlab::Proxy;
use tightwad_script::{ConsensusSpec, Factory};

use crate::contest::{ChildProcess, Contest, connect, into_anyhow, load_model, stack, stack_all};
use crate::exact::{Question, arithmetic, extraction};
use crate::prompts::prompt_set;

/// Compares every consensus rule with speculation and with the target alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Consensus {
    /// GGUF file of the target.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// GGUF file of a drafter, which runs in its own process. Repeatable.
    #[arg(long, required = true)]
    drafter: Vec<PathBuf>,
    /// Rules to measure.
    #[arg(long, value_delimiter = ',', default_values_t = ["strict", "majority", "any_disagree", "hedge"].map(str::to_owned))]
    rules: Vec<String>,
    /// Path of a policy plugin to measure. Repeatable.
    #[arg(long)]
    policy: Vec<PathBuf>,
    /// Number of prompts of prose, and of each kind of question.
    #[arg(long, default_value_t = 6)]
    prompts: usize,
    /// Tokens per answer.
    #[arg(long, default_value_t = 96)]
    tokens: u32,
    /// Tokens per ballot.
    #[arg(long, default_value_t = 8)]
    max_draft_tokens: u32,
    /// Sampling temperature. 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Runs the target in another process, behind a link with this delay in milliseconds each way.
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
    /// Compares exact trees: one verification for all paths, one call per path, and each drafter alone.
    #[arg(long)]
    trees: bool,
    /// Tokens per draft in the comparison of trees.
    #[arg(long, default_value_t = 4)]
    fixed_draft_tokens: u32,
    /// Threads of each process. Processes that share cores must not have more threads than cores.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// One way to answer, with its totals.
struct Way {
    name: String,
    backend: SharedBackend,
    total_time: Duration,
    tokens: u32,
    unverified: u32,
    rounds: u32,
    accepted: u32,
    answers: u32,
    equal_answers: u32,
    /// Sum of the token edit distances to the target's answers, each divided by the length of that answer.
    distance_sum: f64,
    right_answers: u32,
    questions: u32,
}

impl Way {
    fn new(name: &str, backend: SharedBackend) -> Self {
        Self {
            name: name.to_owned(),
            backend,
            total_time: Duration::ZERO,
            tokens: 0,
            unverified: 0,
            rounds: 0,
            accepted: 0,
            answers: 0,
            equal_answers: 0,
            distance_sum: 0.0,
            right_answers: 0,
            questions: 0,
        }
    }

    fn json(&self, baseline: &Self) -> Value {
        let share = |part: u32, total: u32| f64::from(part) / f64::from(total.max(1));
        json!({
            "name": self.name,
            "speed": baseline.total_time.as_secs_f64() / self.total_time.as_secs_f64().max(1e-9)
                * share(self.tokens, baseline.tokens),
            "tokens": self.tokens, "skipped": share(self.unverified, self.tokens),
            "accepted_per_verification": share(self.accepted, self.rounds),
            "same": share(self.equal_answers, self.answers), "distance": self.distance_sum / f64::from(self.answers.max(1)),
            "right": share(self.right_answers, self.questions), "tokens_per_second": f64::from(self.tokens) / self.total_time.as_secs_f64(),
        })
    }
}

impl Consensus {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        let (mut nodes, mut drafters) = (Vec::new(), Vec::new());
        for (index, path) in self.drafter.iter().enumerate() {
            let (node, address) = self.start_node(path)?;
            nodes.push(node);
            drafters.push(
                connect(factory, format!("http://{address}"), None, Some(&format!("drafter {}", index + 1)))
                    .await?,
            );
        }
        // The proxy must live until the end.
        let proxy;
        let target = match self.delay {
            None => load_model(factory, &self.model, Some(self.threads)).await?,
            Some(delay) => {
                let (node, address) = self.start_node(&self.model)?;
                nodes.push(node);
                proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), address).await?;
                // The connection measures the round trip, so the delay is set first.
                proxy.faults().delay(Duration::from_millis(delay));
                connect(factory, format!("http://{}", proxy.address()), None, Some("target")).await?
            }
        };
        let mut ways = vec![Way::new("target alone", target.clone())];
        if self.trees {
            self.add_trees(factory, &target, &drafters, &mut ways).await?;
        } else {
            self.add_rules(factory, &target, &drafters, &mut ways).await?;
        }
        let questions: Vec<Question> =
            arithmetic(self.prompts).into_iter().chain(extraction(self.prompts)).collect();
        for prompt in prompt_set("prose", self.prompts) {
            self.round(&mut ways, &target, &prompt, None).await?;
        }
        for question in &questions {
            self.round(&mut ways, &target, &question.prompt, Some(question)).await?;
        }
        self.report(&ways);
        Ok(())
    }

    /// Starts a node that lends the model at `path`. Returns the process and its address.
    fn start_node(&self, path: &Path) -> Result<(ChildProcess, SocketAddr)> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", "--no-announce", "--context", "2048", "--threads", &self.threads.to_string()]);
        command.args(["--listen", &address.to_string()]);
        command.arg("--model").arg(format!("lent={}", path.display()));
        Ok((ChildProcess(command.stderr(Stdio::null()).stdout(Stdio::null()).spawn()?), address))
    }

    async fn add_rules(
        &self,
        factory: &dyn Factory,
        target: &SharedBackend,
        drafters: &[SharedBackend],
        ways: &mut Vec<Way>,
    ) -> Result<()> {
        for (index, drafter) in drafters.iter().enumerate() {
            let backend = stack(factory, target, drafter.clone(), json!({})).await?;
            ways.push(Way::new(&format!("speculation, drafter {}", index + 1), backend));
        }
        let backend = stack_all(factory, target, drafters.to_vec(), json!({})).await?;
        ways.push(Way::new("speculation, all", backend));
        for rule in &self.rules {
            ways.push(Way::new(rule, self.consensus(factory, target, drafters, Some(rule), None).await?));
        }
        for path in &self.policy {
            let backend = self.consensus(factory, target, drafters, None, Some(path)).await?;
            ways.push(Way::new(&path.display().to_string(), backend));
        }
        Ok(())
    }

    async fn consensus(
        &self,
        factory: &dyn Factory,
        target: &SharedBackend,
        drafters: &[SharedBackend],
        rule: Option<&String>,
        policy: Option<&PathBuf>,
    ) -> Result<SharedBackend> {
        // No audits and no minimum agreement: the rule must stay the same.
        let mut settings =
            json!({"max_draft_tokens": self.max_draft_tokens, "min_agreement": 0.0, "audit_rate": 0.0});
        if let Some(rule) = rule {
            settings["rule"] = json!(rule);
        }
        let spec = ConsensusSpec {
            target: target.clone(),
            drafters: drafters.to_vec(),
            policy: policy.map(|path| PluginSpec { name: path.display().to_string(), sha256: None }),
            on_policy_failure: OnFailure::Error,
            driver: None,
            settings: settings.as_object().cloned().unwrap_or_default(),
        };
        into_anyhow(factory.consensus(spec).await)
    }

    async fn add_trees(
        &self,
        factory: &dyn Factory,
        target: &SharedBackend,
        drafters: &[SharedBackend],
        ways: &mut Vec<Way>,
    ) -> Result<()> {
        let fixed = self.fixed_draft_tokens;
        for (index, drafter) in drafters.iter().enumerate() {
            let settings = json!({"fixed_draft": fixed});
            let backend = stack(factory, target, drafter.clone(), settings).await?;
            ways.push(Way::new(&format!("drafter {} alone, {fixed}", index + 1), backend));
        }
        for (name, tree) in [("one pass per tree", "always"), ("one pass per path", "calls")] {
            let settings = json!({"fixed_draft": fixed, "tree": tree});
            let backend = stack_all(factory, target, drafters.to_vec(), settings).await?;
            ways.push(Way::new(&format!("{name}, {fixed}"), backend));
        }
        for (name, tree) in [("all, the controller", "auto"), ("all, no trees", "never")] {
            let backend = stack_all(factory, target, drafters.to_vec(), json!({"tree": tree})).await?;
            ways.push(Way::new(name, backend));
        }
        Ok(())
    }

    /// Answers one prompt in every way. The first way is the target alone.
    async fn round(
        &self,
        ways: &mut [Way],
        target: &SharedBackend,
        prompt: &Prompt,
        question: Option<&Question>,
    ) -> Result<()> {
        let contest = Contest { tokens: self.tokens, temperature: self.temperature };
        let tokenizer = target
            .as_target()
            .and_then(|target| target.tokenizer())
            .context("the target has no vocabulary")?;
        let (reference, _, _) = contest.answer(&ways[0].backend, prompt).await?;
        let reference_tokens = tokenizer.tokenize(&reference).await?;
        for way in ways {
            let (text, time, outcome) = contest.answer(&way.backend, prompt).await?;
            let tokens = tokenizer.tokenize(&text).await?;
            let distance =
                strsim::generic_levenshtein::<Vec<u32>, Vec<u32>, _, _>(&reference_tokens, &tokens);
            way.total_time += time;
            way.tokens += outcome.usage.completion_tokens;
            way.unverified += outcome.report.unverified;
            way.rounds += outcome.report.rounds;
            way.accepted += outcome.report.accepted;
            way.answers += 1;
            way.equal_answers += u32::from(text == reference);
            way.distance_sum += distance as f64 / reference_tokens.len().max(1) as f64;
            if let Some(question) = question {
                way.questions += 1;
                way.right_answers += u32::from(question.is_right(&text));
            }
        }
        Ok(())
    }

    fn report(&self, ways: &[Way]) {
        for way in ways {
            let figures = way.json(&ways[0]);
            if self.json {
                println!("{figures}");
                continue;
            }
            let figure = |key: &str| figures[key].as_f64().unwrap_or_default();
            println!(
                "{:28} {:5.2}x  {:6.1} tokens/s  {:3.0} % skipped  {:4.2} accepted per verification  {:3.0} % the same  {:5.3} edits per token  {:3.0} % right",
                way.name,
                figure("speed"),
                figure("tokens_per_second"),
                100.0 * figure("skipped"),
                figure("accepted_per_verification"),
                100.0 * figure("same"),
                figure("distance"),
                100.0 * figure("right")
            );
        }
    }
}
