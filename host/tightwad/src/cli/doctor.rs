//! `tightwad doctor`: checks what a script depends on, and says how to mend each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tightwad_core::Token;
use tightwad_net::{Found, discover};
use tightwad_node::{NodeHealth, probe};
use tightwad_script::{Factory, load};

use crate::app::factory::HostFactory;
use crate::app::shelf;
use crate::cli::run;
use crate::cli::token::TokenParser;

/// How far clocks may be apart before logs are hard to compare.
const SKEW: Duration = Duration::from_secs(2);

/// Checks a script, its models and the nodes around, and says how to mend what is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// The script; without it, only this machine and the nodes are checked.
    script: Option<PathBuf>,
    /// A setting that the script finds in tw.settings.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = run::setting)]
    settings: Vec<(String, String)>,
    /// A folder of plugins.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Also checks this node.
    #[arg(long = "node", value_name = "URL")]
    nodes: Vec<String>,
    /// The token of the nodes.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Seconds to listen for nodes on the local network.
    #[arg(long, default_value_t = 1.0)]
    wait: f64,
    /// Prints JSON, one finding a line.
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Doubtful,
    Bad,
}

/// What was found.
struct Findings {
    json: bool,
    bad: usize,
}

impl Findings {
    fn add(&mut self, verdict: Verdict, what: &str, detail: &str) {
        self.bad += usize::from(verdict == Verdict::Bad);
        println!("{}", line(self.json, verdict, what, detail));
    }

    fn check(&mut self, what: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(detail) => self.add(Verdict::Good, what, &detail),
            Err(detail) => self.add(Verdict::Bad, what, &detail),
        }
    }
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<()> {
        let mut findings = Findings { json: self.json, bad: 0 };
        let cores = tightwad_engine::processors();
        let version = env!("CARGO_PKG_VERSION");
        findings.add(Verdict::Good, "this machine", &format!("tightwad {version}, {cores} cores"));
        let factory = match shelf::library(self.plugins.as_deref(), self.script.as_deref()) {
            Ok(library) => Some(Arc::new(HostFactory::new(library))),
            Err(error) => {
                findings.add(Verdict::Bad, "plugins", &format!("{error:#}"));
                None
            }
        };
        if let (Some(factory), Some(_)) = (&factory, &self.script) {
            self.script(factory, &mut findings).await;
        }
        self.nodes(&mut findings).await;
        match findings.bad {
            0 => Ok(()),
            bad => bail!("{bad} of these must be mended"),
        }
    }

    /// Loads the script with all its models, and looks whether it could listen.
    async fn script(&self, factory: &Arc<HostFactory>, findings: &mut Findings) {
        let Some(path) = &self.script else { return };
        let made: Arc<dyn Factory> = factory.clone();
        let shown = path.display().to_string();
        match load(path, made, &self.settings).await {
            Err(error) => findings.add(Verdict::Bad, "script", &error.to_string()),
            Ok(script) => {
                let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
                findings.add(Verdict::Good, "script", &format!("{shown} serves {}", names.join(", ")));
                let wanted = script.listen.as_deref().unwrap_or(run::LISTEN);
                let mend = "`token` in tw.serve or TIGHTWAD_TOKEN";
                let bound =
                    crate::cli::listen::bind(wanted, script.token.is_some() || self.token.is_some(), mend);
                let bound = bound.await.map(|_| format!("{wanted} is free"));
                findings.check("address", bound.map_err(|error| format!("{error:#}")));
            }
        }
    }

    /// The nodes that were named, and those that make themselves known.
    async fn nodes(&self, findings: &mut Findings) {
        let found = discover(Duration::from_secs_f64(self.wait.clamp(0.0, 60.0))).await;
        let found = found.unwrap_or_else(|error| {
            findings.add(Verdict::Doubtful, "local network", &format!("nodes cannot be looked for: {error}"));
            Vec::new()
        });
        let unknown = |url: &&String| !found.iter().any(|node| &node.url == *url);
        let named: Vec<&String> = self.nodes.iter().filter(unknown).collect();
        if found.is_empty() && named.is_empty() {
            let detail = "no node makes itself known; start one with `tightwad node --listen ADDR --token T --model NAME=PATH`, or give --node URL";
            findings.add(Verdict::Good, "nodes", detail);
        }
        for Found { name, url, .. } in &found {
            self.node(&format!("node {name} at {url}"), url, findings).await;
        }
        for url in named {
            self.node(&format!("node {url}"), url, findings).await;
        }
    }

    async fn node(&self, what: &str, url: &str, findings: &mut Findings) {
        match probe(url, self.token.clone()).await {
            Err(error) => findings.add(Verdict::Bad, what, &error.to_string()),
            Ok(health) => {
                for (verdict, detail) in node_findings(&health) {
                    findings.add(verdict, what, &detail);
                }
            }
        }
    }
}

/// A finding as it is printed.
fn line(as_json: bool, verdict: Verdict, what: &str, detail: &str) -> String {
    let word = match verdict {
        Verdict::Good => "ok",
        Verdict::Doubtful => "warn",
        Verdict::Bad => "FAIL",
    };
    if as_json {
        return json!({"verdict": word.to_lowercase(), "what": what, "detail": detail}).to_string();
    }
    format!("{word:4}  {what}: {detail}")
}

/// What there is to say of a node that answers.
fn node_findings(health: &NodeHealth) -> Vec<(Verdict, String)> {
    let mut findings = vec![(Verdict::Good, described(health))];
    if health.skew > SKEW {
        let seconds = health.skew.as_secs();
        findings.push((
            Verdict::Doubtful,
            format!("its clock is {seconds} s apart from this machine's: set both by NTP, so that logs can be compared"),
        ));
    }
    if health.facts.tightwad != env!("CARGO_PKG_VERSION") {
        let detail = format!("it runs tightwad {}: update the older one", health.facts.tightwad);
        findings.push((Verdict::Doubtful, detail));
    }
    findings
}

fn described(health: &NodeHealth) -> String {
    let model = |model: &tightwad_node::NodeModel| {
        let (facts, load) = (&model.facts, model.load);
        let megabytes = facts.bytes / 1_000_000;
        format!(
            "{} ({}, {megabytes} MB, context {}, {} of {} sequences open, {} waiting)",
            model.name, facts.description, facts.context, load.active, facts.slots, load.waiting
        )
    };
    let models: Vec<String> = health.facts.models.iter().map(model).collect();
    format!("answers in {:.1} ms and lends {}", health.round_trip.as_secs_f64() * 1000.0, models.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    #[test]
    fn a_node_is_described_with_what_is_doubtful_about_it() {
        let facts = json!({"tightwad": "0.0.9", "protocol": 1, "unix_ms": 0, "sessions": 1, "models": [{
            "name": "small", "vocabulary": "00", "weights": "00", "description": "llama 135M Q4_1", "bytes": 98_362_432,
            "context": 1024, "slots": 8, "tools": false, "token_ns": 1, "row_ns": 1, "active": 1, "waiting": 2}]});
        let health = NodeHealth {
            facts: from_value(facts).unwrap(),
            round_trip: Duration::from_micros(1500),
            skew: Duration::from_millis(5400),
        };
        let shown = |as_json| {
            let lines = node_findings(&health);
            lines
                .iter()
                .map(|(verdict, detail)| line(as_json, *verdict, "node far", detail))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown(false),
            [
                "ok    node far: answers in 1.5 ms and lends small (llama 135M Q4_1, 98 MB, context 1024, 1 of 8 sequences open, 2 waiting)",
                "warn  node far: its clock is 5 s apart from this machine's: set both by NTP, so that logs can be compared",
                "warn  node far: it runs tightwad 0.0.9: update the older one",
            ]
        );
        assert_eq!(
            shown(true)[2],
            r#"{"verdict":"warn","what":"node far","detail":"it runs tightwad 0.0.9: update the older one"}"#
        );
        let fine = NodeHealth { skew: SKEW, ..health };
        assert_eq!(node_findings(&fine).len(), 2, "only the version differs");
        assert_eq!(line(false, Verdict::Bad, "script", "script.lua:2: no"), "FAIL  script: script.lua:2: no");
    }
}
