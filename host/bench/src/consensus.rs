//! Consensus by every rule, against speculation and against the target alone. Each drafter is a process of
//! its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tightwad_core::{OnFailure, Prompt, SharedBackend};
use tightwad_netlab::Proxy;
use tightwad_script::{ConsensusSpec, Factory, PluginSpec};

use crate::contest::{Contest, Lender, connected, made, model, stack, stack_all};
use crate::exact::{Question, arithmetic, extraction};
use crate::prompts::set;

/// Consensus by every rule, against speculation and the target alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Consensus {
    /// The target.
    #[arg(long, default_value = "models/smollm2-135m-instruct.gguf")]
    model: PathBuf,
    /// A drafter's model; several, each in a process of its own.
    #[arg(long, required = true)]
    draft: Vec<PathBuf>,
    /// The rules.
    #[arg(long, value_delimiter = ',', default_values_t = ["strict", "majority", "any_disagree", "hedge"].map(str::to_owned))]
    rules: Vec<String>,
    /// Policy plugins, by path.
    #[arg(long)]
    plugin: Vec<PathBuf>,
    /// Prompts of prose, and of each kind of question.
    #[arg(long, default_value_t = 6)]
    prompts: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 96)]
    tokens: u32,
    /// Tokens of a ballot.
    #[arg(long, default_value_t = 8)]
    block: u32,
    /// 0: greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// The target is another process, so many milliseconds away each way.
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
    /// Compares trees: one verification for all branches, a call a branch, and each drafter alone. Everything
    /// is exact then.
    #[arg(long)]
    trees: bool,
    /// Length of a draft, when trees are compared.
    #[arg(long, default_value_t = 4)]
    fixed: u32,
    /// Threads of each process: several that share cores must not have more than these.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// One way to answer, with its sums.
struct Way {
    name: String,
    backend: SharedBackend,
    took: Duration,
    tokens: u32,
    unverified: u32,
    rounds: u32,
    accepted: u32,
    answers: u32,
    same: u32,
    /// Sum of the token edit distances to the target's own answers, each a share of that answer.
    distance: f64,
    right: u32,
    questions: u32,
}

impl Way {
    fn new(name: &str, backend: SharedBackend) -> Self {
        Self {
            name: name.to_owned(),
            backend,
            took: Duration::ZERO,
            tokens: 0,
            unverified: 0,
            rounds: 0,
            accepted: 0,
            answers: 0,
            same: 0,
            distance: 0.0,
            right: 0,
            questions: 0,
        }
    }

    fn json(&self, plain: &Self) -> Value {
        let share = |a: u32, b: u32| f64::from(a) / f64::from(b.max(1));
        json!({
            "name": self.name,
            "speed": plain.took.as_secs_f64() / self.took.as_secs_f64().max(1e-9)
                * share(self.tokens, plain.tokens),
            "tokens": self.tokens, "skipped": share(self.unverified, self.tokens),
            "accepted_a_verification": share(self.accepted, self.rounds),
            "same": share(self.same, self.answers), "distance": self.distance / f64::from(self.answers.max(1)),
            "right": share(self.right, self.questions), "tokens_per_second": f64::from(self.tokens) / self.took.as_secs_f64(),
        })
    }
}

impl Consensus {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        let (mut lenders, mut drafters) = (Vec::new(), Vec::new());
        for (index, path) in self.draft.iter().enumerate() {
            let (lender, address) = self.lend(path)?;
            lenders.push(lender);
            drafters.push(connected(factory, address, None, Some(&format!("drafter {}", index + 1))).await?);
        }
        // Kept until the end.
        let link;
        let target = match self.delay {
            None => model(factory, &self.model, Some(self.threads)).await?,
            Some(delay) => {
                let (lender, there) = self.lend(&self.model)?;
                lenders.push(lender);
                link = Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), there).await?;
                // Measured at that distance, as it would be.
                link.faults().delay(Duration::from_millis(delay));
                connected(factory, link.address(), None, Some("target")).await?
            }
        };
        let mut ways = vec![Way::new("target alone", target.clone())];
        if self.trees {
            self.trees(factory, &target, &drafters, &mut ways).await?;
        } else {
            self.rules(factory, &target, &drafters, &mut ways).await?;
        }
        let questions: Vec<Question> =
            arithmetic(self.prompts).into_iter().chain(extraction(self.prompts)).collect();
        for prompt in set("prose", self.prompts) {
            self.round(&mut ways, &target, &prompt, None).await?;
        }
        for question in &questions {
            self.round(&mut ways, &target, &question.prompt, Some(question)).await?;
        }
        self.report(&ways);
        Ok(())
    }

    /// Starts a process that lends `path`, and where.
    fn lend(&self, path: &Path) -> Result<(Lender, SocketAddr)> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["node", "--quiet", "--context", "2048", "--threads", &self.threads.to_string()]);
        command.args(["--listen", &free.to_string()]);
        command.arg("--model").arg(format!("lent={}", path.display()));
        Ok((Lender(command.stderr(Stdio::null()).stdout(Stdio::null()).spawn()?), free))
    }

    async fn rules(
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
        let all = stack_all(factory, target, drafters.to_vec(), json!({})).await?;
        ways.push(Way::new("speculation, all", all));
        for rule in &self.rules {
            ways.push(Way::new(rule, self.consensus(factory, target, drafters, Some(rule), None).await?));
        }
        for path in &self.plugin {
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
        plugin: Option<&PathBuf>,
    ) -> Result<SharedBackend> {
        // Without a floor: what a rule costs is what is to be seen.
        let mut settings = json!({"block": self.block, "floor": 0.0, "audit": 0.0});
        if let Some(rule) = rule {
            settings["rule"] = json!(rule);
        }
        let spec = ConsensusSpec {
            target: target.clone(),
            drafters: drafters.to_vec(),
            plugin: plugin.map(|path| PluginSpec { name: path.display().to_string(), sha256: None }),
            on_failure: OnFailure::Error,
            mode: None,
            settings: settings.as_object().cloned().unwrap_or_default(),
        };
        made(factory.consensus(spec).await)
    }

    async fn trees(
        &self,
        factory: &dyn Factory,
        target: &SharedBackend,
        drafters: &[SharedBackend],
        ways: &mut Vec<Way>,
    ) -> Result<()> {
        let fixed = self.fixed;
        for (index, drafter) in drafters.iter().enumerate() {
            let settings = json!({"fixed_draft": fixed});
            let backend = stack(factory, target, drafter.clone(), settings).await?;
            ways.push(Way::new(&format!("drafter {} alone, {fixed}", index + 1), backend));
        }
        for (name, tree) in [("one pass a tree", "always"), ("one pass a branch", "calls")] {
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

    /// One prompt, answered by all; the first way's answer is the target's own.
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
        let (truth, _, _) = contest.answer(&ways[0].backend, prompt).await?;
        let own = tokenizer.tokenize(&truth).await?;
        for way in ways {
            let (text, took, outcome) = contest.answer(&way.backend, prompt).await?;
            let tokens = tokenizer.tokenize(&text).await?;
            let distance = strsim::generic_levenshtein::<Vec<u32>, Vec<u32>, _, _>(&own, &tokens);
            way.took += took;
            way.tokens += outcome.usage.completion_tokens;
            way.unverified += outcome.report.unverified;
            way.rounds += outcome.report.rounds;
            way.accepted += outcome.report.accepted;
            way.answers += 1;
            way.same += u32::from(text == truth);
            way.distance += distance as f64 / own.len().max(1) as f64;
            if let Some(question) = question {
                way.questions += 1;
                way.right += u32::from(question.is_right(&text));
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
                "{:28} {:5.2}x  {:6.1} tokens/s  {:3.0} % skipped  {:4.2} accepted a verification  {:3.0} % the same  {:5.3} edits a token  {:3.0} % right",
                way.name,
                figure("speed"),
                figure("tokens_per_second"),
                100.0 * figure("skipped"),
                figure("accepted_a_verification"),
                100.0 * figure("same"),
                figure("distance"),
                100.0 * figure("right")
            );
        }
    }
}
