//! Talking to a running host: what it does, and which models it has loaded.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tightwad_core::Token;
use tightwad_net::{authorized, machine_client};

use crate::cli::token::TokenParser;

/// Where the host is.
#[derive(Debug, clap::Args)]
pub(crate) struct Host {
    /// The endpoint.
    #[arg(long, default_value = "http://127.0.0.1:8088")]
    url: String,
    /// The bearer token, where the endpoint wants one.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
}

impl Host {
    async fn ask(&self, method: reqwest::Method, path: &str) -> Result<Value> {
        let client = machine_client().connect_timeout(Duration::from_secs(5)).build()?;
        let url = self.url.trim_end_matches('/').trim_end_matches("/v1");
        let request = client.request(method, format!("{url}{path}"));
        let request = authorized(request, self.token.as_ref());
        let sent = request.send().await;
        let response =
            sent.with_context(|| format!("nothing answers at {url}; is `tightwad run` running there?"))?;
        let status = response.status();
        let body: Value = response.json().await.with_context(|| format!("{url} is no tightwad host"))?;
        if !status.is_success() {
            bail!("{}", body["error"]["message"].as_str().unwrap_or("the host did not say why"));
        }
        Ok(body)
    }

    async fn status(&self) -> Result<Value> {
        self.ask(reqwest::Method::GET, "/v1/tightwad/status").await
    }
}

/// Shows what a running host serves and what its pools are doing.
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
            for part in list(&model["parts"]) {
                let head = if part["output"] == true { ", output head" } else { "" };
                println!(
                    "  {}: {} layers from {}{head}",
                    text(&part["machine"]),
                    part["layers"],
                    part["first"]
                );
            }
        }
        Ok(())
    }
}

/// Loads and unloads models of a running host.
#[derive(Debug, clap::Args)]
pub(crate) struct Model {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Shows the models that can be loaded and unloaded.
    List {
        #[command(flatten)]
        host: Host,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Loads a model, and waits until it answers.
    Load {
        /// Its name.
        model: String,
        #[command(flatten)]
        host: Host,
    },
    /// Finishes a model's requests, then unloads it.
    Unload {
        /// Its name.
        model: String,
        #[command(flatten)]
        host: Host,
    },
}

impl Model {
    pub(crate) async fn run(self) -> Result<()> {
        match self.what {
            What::List { host, json } => {
                let models = host.status().await?["models"].take();
                if json {
                    println!("{models:#}");
                } else {
                    list(&models).for_each(|model| {
                        println!("{}: {}", text(&model["model"]), text(&model["detail"]));
                    });
                }
            }
            What::Load { model, host } => change(&host, &model, "load").await?,
            What::Unload { model, host } => change(&host, &model, "unload").await?,
        }
        Ok(())
    }
}

async fn change(host: &Host, model: &str, what: &str) -> Result<()> {
    let done = host.ask(reqwest::Method::POST, &format!("/v1/tightwad/models/{model}/{what}")).await?;
    println!("{model} is {}", text(&done["state"]));
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
