//! `tightwad worker`: lends memory and compute to pools.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tightwad_core::{Size, Token, user_cache_dir};
use tightwad_engine::{cpu_count, pool};
use tightwad_net::AllowedNetwork;
use tightwad_pool::{WorkerConfig, WorkerService, WorkerState, serve_worker};
use tightwad_tunnel::TensorCache;

use crate::cli::listen;
use crate::cli::machine::MachineArgs;
use crate::cli::token::TokenParser;

/// Lends this machine's memory and compute to pools.
#[derive(Debug, clap::Args)]
pub(crate) struct Worker {
    /// Address to listen on. Addresses other than loopback need a token or a paired machine.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7711")]
    listen: String,
    /// Token that hosts must know.
    #[arg(long, env = "TIGHTWAD_TOKEN", hide_env_values = true, value_parser = TokenParser)]
    token: Option<Token>,
    /// Lends only to this address or network, such as 192.168.1.0/24. Repeatable.
    #[arg(long, value_name = "ADDR")]
    allow: Vec<AllowedNetwork>,
    /// Folder for received tensors, so that a second load sends almost nothing. Default: below the user's cache.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Greatest size of that folder, such as 50G. 0 turns the cache off.
    #[arg(long, value_name = "SIZE", default_value = "64G")]
    max_cache_size: Size,
    /// Memory to lend, such as 6G. Default: nine tenths of the free memory.
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<Size>,
    /// Threads of a forward pass. Default: one per core.
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Serves one tunnel at this address. The worker starts such processes itself.
    #[arg(long, hide = true)]
    serve: Option<String>,
}

impl Worker {
    pub(crate) async fn run(self) -> Result<()> {
        let threads = self.threads.unwrap_or_else(cpu_count);
        if threads == 0 {
            bail!("--threads 0: a forward pass needs at least one thread");
        }
        if let Some(endpoint) = self.serve {
            listen::end_with_parent();
            return Ok(tokio::task::spawn_blocking(move || pool::serve(&endpoint, threads)).await??);
        }
        let server = self.machine.bind(&self.listen, self.token, "--token or TIGHTWAD_TOKEN").await?;
        let config = tokio::task::spawn_blocking(move || worker_config(threads, self.max_memory)).await??;
        eprintln!(
            "tightwad lends {} of memory, {} at {}/s with {threads} threads, at {}",
            Size(config.memory),
            config.device.description,
            Size(config.memory_bandwidth.0),
            server.url()?
        );
        let cache = match self.max_cache_size.0 {
            0 => None,
            limit => {
                let folder = self.cache_dir.or_else(|| user_cache_dir().map(|cache| cache.join("tensors")));
                let folder = folder.context("HOME is not set. Name a folder with --cache-dir.")?;
                let folder_text = folder.display().to_string();
                Some(
                    TensorCache::new(folder, limit)
                        .with_context(|| format!("cannot use {folder_text} as the tensor cache"))?,
                )
            }
        };
        let state = WorkerState::new(WorkerService::new(config, cache), server.token, self.allow);
        Ok(serve_worker(server.listener, state, server.encryption, listen::shutdown_signal()?).await?)
    }
}

/// Measures the device and applies `--max-memory`.
fn worker_config(threads: usize, memory: Option<Size>) -> Result<WorkerConfig> {
    let device = pool::device()?;
    let memory_bandwidth = pool::measure_memory_bandwidth(threads)?;
    let memory = match memory {
        Some(Size(bytes)) if bytes > device.total_bytes => {
            bail!("--max-memory {} is more than this machine has: {}", Size(bytes), Size(device.total_bytes))
        }
        Some(Size(bytes)) => bytes,
        None => device.free_bytes / 10 * 9,
    };
    Ok(WorkerConfig { device, memory_bandwidth, threads, memory })
}
