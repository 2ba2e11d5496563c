//! `tightwad worker`: lends memory and computing to pools.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tightwad_core::{Size, Token, user_cache};
use tightwad_engine::{pool, processors};
use tightwad_net::Allowed;
use tightwad_pool::{Lender, LenderConfig, WorkerState, serve_worker};
use tightwad_tunnel::Cache;

use crate::cli::listen;
use crate::cli::token::TokenParser;

/// Lends this machine's memory and computing to pools.
#[derive(Debug, clap::Args)]
pub(crate) struct Worker {
    /// Where to listen; anything but loopback needs a token.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7711")]
    listen: String,
    /// The bearer token that hosts must send.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Lends only to this address or network, such as 192.168.1.0/24; may be given several times.
    #[arg(long, value_name = "ADDR")]
    allow: Vec<Allowed>,
    /// A folder for tensors, so that a second load sends almost nothing; default: in the user's cache.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// How much the folder may hold, such as 50G; 0 keeps nothing.
    #[arg(long, value_name = "SIZE", default_value = "64G")]
    cache_limit: Size,
    /// Memory to lend, such as 6G; default: what is free now, less a tenth.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Threads of a forward pass; default: one a core.
    #[arg(long)]
    threads: Option<usize>,
    /// Serves one pool at this address, for the worker that started it.
    #[arg(long, hide = true)]
    serve: Option<String>,
}

impl Worker {
    pub(crate) async fn run(self) -> Result<()> {
        let threads = self.threads.unwrap_or_else(processors);
        if threads == 0 {
            bail!("--threads 0: a forward pass needs one at least");
        }
        if let Some(endpoint) = self.serve {
            listen::end_with_parent();
            return Ok(tokio::task::spawn_blocking(move || pool::serve(&endpoint, threads)).await??);
        }
        let listener = listen::bind(&self.listen, self.token.is_some(), "--token or TIGHTWAD_TOKEN").await?;
        let config = tokio::task::spawn_blocking(move || lent(threads, self.memory)).await??;
        eprintln!(
            "tightwad lends {} of memory, {} at {}/s with {threads} threads, at http://{}",
            Size(config.memory),
            config.device.description,
            Size(config.speed.0),
            listener.local_addr()?
        );
        let cache = match self.cache_limit.0 {
            0 => None,
            limit => {
                let folder = self.cache.or_else(|| user_cache().map(|cache| cache.join("tensors")));
                let folder = folder.context("there is no HOME for the cache: give --cache DIR")?;
                let shown = folder.display().to_string();
                Some(Cache::new(folder, limit).with_context(|| format!("cannot keep tensors in {shown}"))?)
            }
        };
        let state = WorkerState::new(Lender::new(config, cache), self.token, self.allow);
        Ok(serve_worker(listener, state, listen::interrupted()?).await?)
    }
}

/// What this machine can lend.
fn lent(threads: usize, memory: Option<Size>) -> Result<LenderConfig> {
    let device = pool::device()?;
    let speed = pool::measure_speed(threads)?;
    let memory = match memory {
        Some(Size(wanted)) if wanted > device.total => {
            bail!("--memory {}: this machine has {}", Size(wanted), Size(device.total))
        }
        Some(Size(wanted)) => wanted,
        None => device.free / 10 * 9,
    };
    Ok(LenderConfig { device, speed, threads, memory })
}
