//! `tightwad gate`: a quality gate by one command.

use std::path::PathBuf;

use anyhow::Result;
use tightwad_core::Token;

use crate::cli::listen::Drain;
use crate::cli::run::{Serving, Source};
use crate::cli::token::TokenParser;

/// The preset.
const SCRIPT: &str = include_str!("../../../../scripts/gate.lua");

/// A fleet of cheap machines that write, and a strong model that approves, corrects or rejects.
#[derive(Debug, clap::Args)]
pub(crate) struct Gate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serves it.
    Start(Start),
}

#[derive(Debug, clap::Args)]
struct Start {
    /// Who writes: a node's address or a GGUF file; may be given several times.
    #[arg(long, required = true, value_name = "URL|FILE")]
    fleet: Vec<String>,
    /// Who reviews: a node's address or a GGUF file.
    #[arg(long, value_name = "URL|FILE")]
    reviewer: String,
    /// score, judge or both.
    #[arg(long, default_value = "score")]
    review: String,
    /// The token of nodes that want one.
    #[arg(long, env = "TIGHTWAD_NODE_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    node_token: Option<Token>,
    /// Where to listen.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The bearer token that clients must send.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// A gate policy in place of the built-in verdict.
    #[arg(long)]
    plugin: Option<String>,
    /// A folder of plugins.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    #[command(flatten)]
    drain: Drain,
}

impl Gate {
    pub(crate) async fn run(self) -> Result<()> {
        let Command::Start(start) = self.command;
        let mut settings = vec![
            ("fleet".to_owned(), start.fleet.join(",")),
            ("reviewer".to_owned(), start.reviewer.clone()),
            ("review".to_owned(), start.review.clone()),
        ];
        settings
            .extend(start.node_token.clone().map(|token| ("token".to_owned(), token.secret().to_owned())));
        settings.extend(start.plugin.clone().map(|plugin| ("plugin".to_owned(), plugin)));
        let source = Source::Preset("gate", SCRIPT);
        let Start { listen, plugins, token, drain, .. } = start;
        Serving { source, listen, plugins, settings, token, drain }.run().await
    }
}
