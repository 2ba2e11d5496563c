//! `tightwad status` and `tightwad model`: calls to a running host.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tightwad_core::{Token, root_cause};
use tightwad_net::{ServerUrl, authorized, machine_client};

use crate::cli::token::TokenParser;

/// Address and token of the host.
#[derive(Debug, clap::Args)]
pub(crate) struct Host {
    /// Address of the host.
    #[arg(long, default_value = "http://127.0.0.1:8088", value_parser = crate::cli::args::endpoint_url)]
    url: ServerUrl,
    /// Bearer token of the host.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
}

impl Host {
    async fn call(&self, method: reqwest::Method, path: &str) -> Result<Value> {
        let client = machine_client().connect_timeout(Duration::from_secs(5)).build()?;
        let url = &self.url;
        let request = authorized(url.request(&client, method, path), self.token.as_ref());
        let sent = request.send().await;
        let response = sent.map_err(|error| {
            let cause = root_cause(&error);
            anyhow!(
                "no host answers at {url}: {cause}. Start `tightwad run` there, or name another address with --url."
            )
        })?;
        let status = response.status();
        let body: Value = response.json().await.with_context(|| format!("{url} is not a tightwad host"))?;
        if !status.is_success() {
            bail!("{}", body["error"]["message"].as_str().unwrap_or("the host gave no reason"));
        }
        Ok(body)
    }

    async fn status(&self) -> Result<Value> {
        self.call(reqwest::Method::GET, "/v1/tightwad/status").await
    }
}

/// Shows the served models of a running host and the state of its pools.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    host: Host,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self) -> Result<()> {
        let status = self.host.status().await?;
        if self.json {
            println!("{status:#}");
            return Ok(());
        }
        println!("tightwad {}", text(&status["tightwad"]));
        for served in list(&status["serves"]) {
            let (name, backend) = (text(&served["name"]), text(&served["backend"]));
            println!("serves {name}: {backend}, {} running, {} waiting", served["active"], served["waiting"]);
        }
        for model in list(&status["models"]) {
            println!(
                "model {}: {}, {} in use",
                text(&model["model"]),
                text(&model["detail"]),
                model["active"]
            );
            for assignment in list(&model["assignments"]) {
                let head = if assignment["output"] == true { ", output head" } else { "" };
                println!(
                    "  {}: {} layers from {}{head}",
                    text(&assignment["machine"]),
                    assignment["layers"],
                    assignment["first"]
                );
            }
        }
        Ok(())
    }
}

/// Loads and unloads the pools of a running host.
#[derive(Debug, clap::Args)]
pub(crate) struct Model {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists the pools and their states.
    List {
        #[command(flatten)]
        host: Host,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Loads a pool and waits until it is ready.
    Load {
        /// Name of the pool.
        model: String,
        #[command(flatten)]
        host: Host,
    },
    /// Unloads a pool after its running requests.
    Unload {
        /// Name of the pool.
        model: String,
        #[command(flatten)]
        host: Host,
    },
}

impl Model {
    pub(crate) async fn run(self) -> Result<()> {
        match self.command {
            Command::List { host, json } => {
                let models = host.status().await?["models"].take();
                if json {
                    println!("{models:#}");
                } else {
                    list(&models).for_each(|model| {
                        println!("{}: {}", text(&model["model"]), text(&model["detail"]));
                    });
                }
            }
            Command::Load { model, host } => change_pool(&host, &model, "load").await?,
            Command::Unload { model, host } => change_pool(&host, &model, "unload").await?,
        }
        Ok(())
    }
}

async fn change_pool(host: &Host, model: &str, action: &str) -> Result<()> {
    let reply = host.call(reqwest::Method::POST, &format!("/v1/tightwad/models/{model}/{action}")).await?;
    println!("{model} is {}", text(&reply["state"]));
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
