//! `tightwad doctor`: checks a script, its models and the nodes, and names a fix for each fault.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tightwad_core::Token;
use tightwad_net::{DiscoveredNode, ServerUrl, discover_nodes};
use tightwad_node::{NodeHealth, probe};
use tightwad_script::{Factory, load};

use crate::app::factory::HostFactory;
use crate::app::plugin_folders;
use crate::cli::machine::MachineArgs;
use crate::cli::run;
use crate::cli::token::TokenParser;

/// The greatest clock skew without a warning. A greater skew makes logs hard to compare.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Checks a script, its models and the nodes, and names a fix for each fault.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Script to check. Without a script, only this machine and the nodes are checked.
    script: Option<PathBuf>,
    /// Value of an argument that the script declares with tw.arg. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = crate::cli::args::key_value)]
    arguments: Vec<(String, String)>,
    /// Folder of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
    /// Node to check, in addition to the nodes on the local network. Repeatable.
    #[arg(long = "node", value_name = "URL")]
    nodes: Vec<ServerUrl>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Token of the nodes.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Seconds to look for nodes on the local network.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    discovery_time: f64,
    /// Prints JSON, one finding per line.
    #[arg(long)]
    json: bool,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Warning,
    Failed,
}

/// Prints findings and counts faults.
struct Findings {
    json: bool,
    failures: usize,
}

impl Findings {
    fn add(&mut self, verdict: Verdict, subject: &str, detail: &str) {
        self.failures += usize::from(verdict == Verdict::Failed);
        println!("{}", line(self.json, verdict, subject, detail));
    }

    fn check(&mut self, subject: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(detail) => self.add(Verdict::Passed, subject, &detail),
            Err(detail) => self.add(Verdict::Failed, subject, &detail),
        }
    }
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<()> {
        let mut findings = Findings { json: self.json, failures: 0 };
        let cores = tightwad_engine::cpu_count();
        let version = env!("CARGO_PKG_VERSION");
        findings.add(Verdict::Passed, "this machine", &format!("tightwad {version}, {cores} cores"));
        let factory = match plugin_folders::library(self.plugins_dir.as_deref(), self.script.as_deref()) {
            Ok(library) => Some(Arc::new(HostFactory::new(library))),
            Err(error) => {
                findings.add(Verdict::Failed, "plugins", &format!("{error:#}"));
                None
            }
        };
        if let (Some(factory), Some(_)) = (&factory, &self.script) {
            self.script(factory, &mut findings).await;
        }
        self.nodes(&mut findings).await;
        match findings.failures {
            0 => Ok(()),
            failures => bail!("{failures} of the checks failed. Each failed line above names a fix."),
        }
    }

    /// Loads the script with all its models, and checks that its address is free.
    async fn script(&self, factory: &Arc<HostFactory>, findings: &mut Findings) {
        let Some(path) = &self.script else { return };
        let shared_factory: Arc<dyn Factory> = factory.clone();
        let script_path = path.display().to_string();
        match load(path, shared_factory, &self.arguments).await {
            Err(error) => findings.add(Verdict::Failed, "script", &error.to_string()),
            Ok(script) => {
                let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
                findings.add(
                    Verdict::Passed,
                    "script",
                    &format!("{script_path} serves {}", names.join(", ")),
                );
                for error in factory.template_errors() {
                    findings.add(Verdict::Warning, "chat template", &error);
                }
                let address = script.listen.as_deref().unwrap_or(run::DEFAULT_LISTEN);
                let source = "`token` or `keys` in tw.serve, or TIGHTWAD_TOKEN";
                let has_key = !script.credentials.accepts_everyone() || self.token.is_some();
                let bound = crate::cli::listen::bind(address, has_key, source).await;
                let bound = bound.map(|_| format!("{address} is free"));
                findings.check("address", bound.map_err(|error| format!("{error:#}")));
            }
        }
    }

    /// Checks the named nodes and the nodes found on the local network.
    async fn nodes(&self, findings: &mut Findings) {
        let discovered = discover_nodes(Duration::from_secs_f64(self.discovery_time.clamp(0.0, 60.0))).await;
        let discovered = discovered.unwrap_or_else(|error| {
            findings.add(Verdict::Warning, "local network", &format!("discovery failed: {error}"));
            Vec::new()
        });
        // The name of a node can have its fingerprint, which discovery does not give.
        let is_named = |node: &DiscoveredNode| self.nodes.iter().any(|url| url.to_string() == node.url);
        let discovered: Vec<_> = discovered.into_iter().filter(|node| !is_named(node)).collect();
        if discovered.is_empty() && self.nodes.is_empty() {
            let detail = "no node is announced. Start one with `tightwad node --listen ADDR --token T --model NAME=PATH`, or name one with --node URL.";
            findings.add(Verdict::Passed, "nodes", detail);
        }
        for DiscoveredNode { name, url, .. } in &discovered {
            self.node(&format!("node {name} at {url}"), url, findings).await;
        }
        for url in &self.nodes {
            if let Err(error) = self.machine.check("--node", &url.to_string(), url.is_exposed()) {
                findings.add(Verdict::Failed, &format!("node {url}"), &error.to_string());
                continue;
            }
            self.node(&format!("node {url}"), &url.address(), findings).await;
        }
    }

    async fn node(&self, subject: &str, url: &str, findings: &mut Findings) {
        match probe(url, self.token.clone()).await {
            Err(error) => findings.add(Verdict::Failed, subject, &error.to_string()),
            Ok(health) => {
                for (verdict, detail) in node_findings(&health) {
                    findings.add(verdict, subject, &detail);
                }
            }
        }
    }
}

/// A finding as one line of output.
fn line(as_json: bool, verdict: Verdict, subject: &str, detail: &str) -> String {
    let word = match verdict {
        Verdict::Passed => "ok",
        Verdict::Warning => "warn",
        Verdict::Failed => "FAIL",
    };
    if as_json {
        return json!({"verdict": word.to_lowercase(), "what": subject, "detail": detail}).to_string();
    }
    format!("{word:4}  {subject}: {detail}")
}

/// The findings about a node that answers.
fn node_findings(health: &NodeHealth) -> Vec<(Verdict, String)> {
    let mut findings = vec![(Verdict::Passed, description(health))];
    if health.clock_skew > MAX_CLOCK_SKEW {
        let seconds = health.clock_skew.as_secs();
        findings.push((
            Verdict::Warning,
            format!("its clock differs by {seconds} s from this machine's. Set both by NTP."),
        ));
    }
    if health.facts.tightwad != env!("CARGO_PKG_VERSION") {
        let detail = format!("it runs tightwad {}. Update the older version.", health.facts.tightwad);
        findings.push((Verdict::Warning, detail));
    }
    findings
}

fn description(health: &NodeHealth) -> String {
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
    fn node_findings_contain_each_warning() {
        let facts = json!({"tightwad": "0.0.9", "protocol": 1, "unix_ms": 0, "sessions": 1, "models": [{
            "name": "small", "vocabulary": "00", "weights": "00", "description": "llama 135M Q4_1", "bytes": 98_362_432,
            "context": 1024, "slots": 8, "tools": false, "time_per_token_ns": 1, "time_per_row_ns": 1, "active": 1, "waiting": 2}]});
        let health = NodeHealth {
            facts: from_value(facts).unwrap(),
            round_trip: Duration::from_micros(1500),
            clock_skew: Duration::from_millis(5400),
        };
        let output_lines = |as_json| {
            let lines = node_findings(&health);
            lines
                .iter()
                .map(|(verdict, detail)| line(as_json, *verdict, "node far", detail))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            output_lines(false),
            [
                "ok    node far: answers in 1.5 ms and lends small (llama 135M Q4_1, 98 MB, context 1024, 1 of 8 sequences open, 2 waiting)",
                "warn  node far: its clock differs by 5 s from this machine's. Set both by NTP.",
                "warn  node far: it runs tightwad 0.0.9. Update the older version.",
            ]
        );
        assert_eq!(
            output_lines(true)[2],
            r#"{"verdict":"warn","what":"node far","detail":"it runs tightwad 0.0.9. Update the older version."}"#
        );
        let fine = NodeHealth { clock_skew: MAX_CLOCK_SKEW, ..health };
        assert_eq!(node_findings(&fine).len(), 2, "only the version differs");
        assert_eq!(
            line(false, Verdict::Failed, "script", "script.lua:2: no"),
            "FAIL  script: script.lua:2: no"
        );
    }
}
