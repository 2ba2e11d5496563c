//! `tightwad gate`: serves a quality gate without a script file.

use std::path::PathBuf;

use anyhow::Result;
use tightwad_core::Token;

use crate::cli::listen::Drain;
use crate::cli::run::{ScriptServer, Source};
use crate::cli::token::TokenParser;

/// The preset `scripts/gate.lua`.
const SCRIPT: &str = include_str!("../../../../scripts/gate.lua");

/// Serves a quality gate: a fleet writes answers, a strong model approves, corrects or rejects them.
#[derive(Debug, clap::Args)]
pub(crate) struct Gate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serves the models `gate` and `reviewer`.
    Start(Start),
}

#[derive(Debug, clap::Args)]
struct Start {
    /// Member of the fleet: a node's address or a GGUF file. Repeatable.
    #[arg(long, required = true, value_name = "URL|FILE")]
    fleet: Vec<String>,
    /// Reviewer: a node's address or a GGUF file.
    #[arg(long, value_name = "URL|FILE")]
    reviewer: String,
    /// Kind of review: score, judge or both.
    #[arg(long, default_value = "score")]
    review: String,
    /// Token of the nodes.
    #[arg(long, env = "TIGHTWAD_NODE_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    node_token: Option<Token>,
    /// Address to listen on. Default: 127.0.0.1:8088.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Bearer token that clients must send.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Gate policy in place of the built-in verdict: a plugin's name or .wasm file.
    #[arg(long)]
    policy: Option<String>,
    /// Folder of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
    #[command(flatten)]
    drain: Drain,
}

impl Gate {
    pub(crate) async fn run(self) -> Result<()> {
        let Command::Start(start) = self.command;
        let mut arguments = vec![
            ("fleet".to_owned(), start.fleet.join(",")),
            ("reviewer".to_owned(), start.reviewer.clone()),
            ("review".to_owned(), start.review.clone()),
        ];
        arguments
            .extend(start.node_token.clone().map(|token| ("token".to_owned(), token.secret().to_owned())));
        arguments.extend(start.policy.clone().map(|policy| ("policy".to_owned(), policy)));
        let source = Source::Preset("gate", SCRIPT);
        let Start { listen, plugins_dir, token, drain, .. } = start;
        ScriptServer { source, listen, plugins_dir, arguments, token, drain }.run().await
    }
}
