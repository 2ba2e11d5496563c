//! Launches a pool: probes the workers, places the layers, opens the tunnels and loads the model.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::{join_all, select_all};
use tightwad_core::{Device, PoolSpec, Token, WorkerSpec};
use tightwad_engine::cpu_count;
use tightwad_engine::pool::{self as pool, ModelShape, PoolConfig};
use tightwad_modes::{Machine, PlacementPolicy, Plan, Refusal, Shape};
use tightwad_net::RemoteMachine;
use tightwad_node::{ConnectError, Node, NodeSpec};
use tightwad_sandbox::{Plugin, PluginError};
use tightwad_tunnel::{Tunnel, WorkerEndpoint};

use crate::child::{Child, ChildMessage};
use crate::error::PoolError;
use crate::launcher::{LaunchError, Launcher, PoolHandle};
use crate::layout;
use crate::probe::{ProbedWorker, probe_worker, worker_info};
use crate::probe_results::ProbeResults;
use crate::saved_plan::PlanFile;
use crate::state::{Phase, RunningPool};

/// The name of the host in plans.
const HOST_NAME: &str = "host";

/// The maximum time to connect to a worker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The generation of the first launch.
const FIRST_GENERATION: u64 = 1;

/// The delay between the end of the process and the check of the tunnels. A tunnel can detect a lost worker late.
const TUNNEL_ERROR_DELAY: Duration = Duration::from_millis(200);

/// The launcher of one pool.
pub(crate) struct PoolLauncher {
    pub spec: PoolSpec,
    pub model: ModelShape,
    pub plugin: Arc<PlacementPolicy>,
    /// True when the chat template supports tools.
    pub tools: bool,
    /// The workers, in the order of the specification.
    machines: Vec<RemoteMachine>,
    /// The file with the last plan.
    pub plan_file: PlanFile,
    /// The memory bandwidth of the host in bytes per second. The first launch measures it.
    pub host_bandwidth: tokio::sync::OnceCell<u64>,
    /// The context length of the first launch in tokens; 0 before it.
    first_context: AtomicU32,
    /// The context length of the last launch in tokens; 0 before the first one.
    last_context: AtomicU32,
    /// True after the warning that two addresses are the same worker.
    warned_of_duplicates: AtomicBool,
}

/// A plan and its inputs.
pub(crate) struct PlannedPool {
    /// The plan.
    pub plan: Plan,
    /// The shape of the model.
    pub shape: Shape,
    /// The context length in tokens.
    pub context: u32,
    /// The machines that answered.
    pub machines: Vec<Machine>,
    /// For each machine the index of its worker, and whether the worker computes on its CPU; `None` for the host.
    pub workers: Vec<Option<(usize, bool)>>,
}

/// The handle of a pool that this launcher launched.
pub(crate) struct LaunchedPool {
    child: Child,
    /// The tunnels, by the name of the worker.
    tunnels: Vec<(String, Tunnel)>,
    running: Arc<RunningPool>,
}

#[async_trait]
impl PoolHandle for LaunchedPool {
    fn running(&self) -> &Arc<RunningPool> {
        &self.running
    }

    async fn wait_for_failure(&mut self) -> String {
        let tunnel_error = |(name, tunnel): &(String, Tunnel)| {
            tunnel.error().map(|error| format!("worker '{name}': {}", error.0))
        };
        let end_reason = tokio::select! {
            end_reason = self.child.wait_for_end() => end_reason.to_string(),
            error = first_tunnel_error(&self.tunnels) => return error,
        };
        // A lost worker ends the process. The tunnel's error then names the cause.
        tokio::time::sleep(TUNNEL_ERROR_DELAY).await;
        self.tunnels.iter().find_map(tunnel_error).unwrap_or(end_reason)
    }

    async fn stop(self) {
        self.child.stop().await;
    }
}

/// Completes when a tunnel fails. Returns the worker and the error.
async fn first_tunnel_error(tunnels: &[(String, Tunnel)]) -> String {
    if tunnels.is_empty() {
        return std::future::pending().await;
    }
    let failed = |(name, tunnel): &'_ (String, Tunnel)| {
        let (name, watch) = (name.clone(), tunnel.watch());
        Box::pin(async move { format!("worker '{name}': {}", watch.wait_for_failure().await.0) })
    };
    select_all(tunnels.iter().map(failed)).await.0
}

/// Waits until the child process has loaded the model. Returns the address of the process.
async fn wait_until_loaded(
    child: &mut Child,
    tunnels: &[(String, Tunnel)],
    phase: &(dyn Fn(Phase) + Send + Sync),
) -> Result<SocketAddr, LaunchError> {
    loop {
        let message = tokio::select! {
            message = child.next_message() => message.map_err(|error| LaunchError::Retry(error.into())),
            error = first_tunnel_error(tunnels) => Err(LaunchError::Retry(PoolError::TunnelFailed(error))),
        };
        match message? {
            ChildMessage::Loading(share) => phase(Phase::Loading(share)),
            ChildMessage::Listening(address) => return Ok(address),
            ChildMessage::Failed(reason) => {
                return Err(LaunchError::Permanent(PoolError::NotLoaded(reason)));
            }
        }
    }
}

impl PoolLauncher {
    /// Creates a launcher. Contacts no worker yet.
    pub(crate) fn new(
        spec: PoolSpec,
        model: ModelShape,
        plugin: Arc<PlacementPolicy>,
        tools: bool,
    ) -> Result<Self, PoolError> {
        let machine = |worker: &WorkerSpec| {
            Ok(RemoteMachine::new(worker.url.parse()?, worker.token.clone(), CONNECT_TIMEOUT)?)
        };
        let machines = spec.workers.iter().map(machine).collect::<Result<_, PoolError>>()?;
        for pattern in layout::unused_overrides(&spec.override_tensors, &model) {
            tracing::warn!(
                model = spec.name,
                pattern,
                "`override_tensors` has a pattern that matches no tensor"
            );
        }
        Ok(Self {
            plan_file: PlanFile::new(&spec, &model),
            spec,
            model,
            plugin,
            tools,
            machines,
            host_bandwidth: tokio::sync::OnceCell::new(),
            first_context: AtomicU32::new(0),
            last_context: AtomicU32::new(0),
            warned_of_duplicates: AtomicBool::new(false),
        })
    }

    /// The context length of the last launch in tokens, or the longest candidate before the first launch.
    pub(crate) fn context(&self) -> u32 {
        match self.last_context.load(Ordering::Relaxed) {
            0 => layout::context_candidates(&self.spec, &self.model).first().copied().unwrap_or_default(),
            context => context,
        }
    }

    /// Probes all workers at the same time.
    pub(crate) async fn probe_workers(&self) -> ProbeResults {
        let workers = self.machines.iter().zip(&self.spec.workers);
        let probes = workers.map(|(machine, worker)| probe_worker(machine, worker));
        let mut results = ProbeResults { usable: Vec::new(), failed: Vec::new() };
        for (index, result) in join_all(probes).await.into_iter().enumerate() {
            match result {
                Ok(worker) => results.usable.push((index, worker)),
                Err(error) => results.failed.push((index, error)),
            }
        }
        for (duplicate, original) in results.remove_duplicates() {
            if !self.warned_of_duplicates.swap(true, Ordering::Relaxed) {
                let [duplicate, original] = [duplicate, original].map(|index| &self.spec.workers[index].name);
                tracing::warn!(
                    model = self.spec.name,
                    "workers '{original}' and '{duplicate}' are the same worker: '{duplicate}' is ignored"
                );
            }
        }
        results
    }

    /// Lets the placement policy choose the machine of each layer.
    pub(crate) async fn plan(&self, probes: &ProbeResults) -> Result<PlannedPool, LaunchError> {
        if probes.usable.is_empty() && !self.spec.include_host {
            return Err(LaunchError::Retry(PoolError::NoWorker { reasons: probes.errors() }));
        }
        let (mut machines, mut workers) =
            (vec![self.host().await.map_err(LaunchError::Permanent)?], vec![None]);
        for (index, worker) in &probes.usable {
            machines.push(self.machine(*index, worker));
            workers.push(Some((*index, !worker.info.gpu)));
        }
        let (shape, context, placed) = self.place(&machines).await;
        let worker_errors = || match probes.failed.is_empty() {
            true => String::new(),
            false => format!(" ({})", probes.errors()),
        };
        match placed.map_err(|error| LaunchError::Permanent(error.into()))? {
            Ok(plan) => {
                layout::check_plan(&plan, &shape, &machines).map_err(|source| {
                    LaunchError::Permanent(PoolError::Plan { plugin: self.plugin.label().to_owned(), source })
                })?;
                Ok(PlannedPool { plan, shape, context, machines, workers })
            }
            Err(Refusal::TooBig(shortage)) => {
                let error = PoolError::TooBig(
                    layout::shortage_message(&shortage, &shape, &machines) + &worker_errors(),
                );
                Err(LaunchError::TooBig { error, workers_missing: !probes.failed.is_empty() })
            }
            Err(Refusal::Other(reason)) => {
                Err(LaunchError::Permanent(PoolError::Refused(reason + &worker_errors())))
            }
        }
    }

    /// Lets the placement policy place the model with the longest context that fits.
    async fn place(&self, machines: &[Machine]) -> (Shape, u32, Result<Result<Plan, Refusal>, PluginError>) {
        let previous = self.plan_file.read(machines);
        let first = self.first_context.load(Ordering::Relaxed);
        let mut contexts = layout::context_candidates(&self.spec, &self.model);
        // Later launches never use a longer context than the first one. Shorter ones are for missing workers.
        contexts.retain(|context| first == 0 || *context <= first);
        let mut contexts = contexts.into_iter();
        loop {
            let context = contexts.next().unwrap_or(first);
            let shape = layout::shape(&self.spec, &self.model, context);
            let placed = self.plugin.place(&shape, machines, previous.as_ref()).await;
            if contexts.len() == 0 || !matches!(placed, Ok(Err(Refusal::TooBig(_)))) {
                return (shape, context, placed);
            }
        }
    }

    /// The host as a machine of a plan.
    async fn host(&self) -> Result<Machine, PoolError> {
        let include_host = self.spec.include_host;
        let threads = self.spec.threads.map_or_else(cpu_count, |threads| threads as usize);
        let measured = self.host_bandwidth.get_or_try_init(|| async move {
            let measured = tokio::task::spawn_blocking(move || pool::measure_memory_bandwidth(threads)).await;
            Ok::<u64, PoolError>(measured??.0)
        });
        let memory_bandwidth = *measured.await?;
        let free = pool::device()?.free_bytes;
        Ok(Machine {
            name: HOST_NAME.to_owned(),
            memory: free / 10 * 9,
            memory_bandwidth,
            link_bandwidth: 0,
            round_trip_ns: 0,
            is_host: true,
            max_layers: if include_host { u32::MAX } else { 0 },
        })
    }

    /// A worker as a machine of a plan.
    fn machine(&self, index: usize, worker: &ProbedWorker) -> Machine {
        Machine {
            name: self.spec.workers[index].name.clone(),
            memory: worker.info.free,
            memory_bandwidth: worker.info.memory_bandwidth,
            link_bandwidth: worker.bandwidth,
            round_trip_ns: u64::try_from(worker.round_trip.as_nanos()).unwrap_or(u64::MAX),
            is_host: false,
            max_layers: u32::MAX,
        }
    }

    /// Records the context length of a launch. The endpoint has announced the length of the first launch.
    fn record_context(&self, context: u32) {
        let _ = self.first_context.compare_exchange(0, context, Ordering::Relaxed, Ordering::Relaxed);
        self.last_context.store(context, Ordering::Relaxed);
    }

    /// Opens tunnels to the workers of a plan. Returns them with the configuration of the child process.
    async fn open_tunnels(
        &self,
        planned: &PlannedPool,
    ) -> Result<(Vec<(String, Tunnel)>, PoolConfig), LaunchError> {
        let retry = |error| LaunchError::Retry(PoolError::Tunnel(error));
        let mut tunnels = Vec::new();
        let mut addresses = vec![None; planned.machines.len()];
        for assignment in &planned.plan.assignments {
            let machine = assignment.machine as usize;
            let Some((worker, uses_cpu)) = planned.workers[machine] else { continue };
            let endpoint = WorkerEndpoint { machine: self.machines[worker].clone(), uses_cpu };
            let tunnel = Tunnel::open(endpoint).await.map_err(retry)?;
            addresses[machine] = Some(tunnel.address());
            tunnels.push((self.spec.workers[worker].name.clone(), tunnel));
        }
        let (plan, machines) = (&planned.plan, &planned.machines);
        let config =
            layout::pool_config(plan, machines, |machine| addresses[machine], &self.spec.override_tensors);
        Ok((tunnels, config.map_err(|error| LaunchError::Permanent(error.into()))?))
    }

    /// Connects to the child process.
    async fn connect(
        &self,
        address: SocketAddr,
        token: &Token,
        host_computes: bool,
    ) -> Result<Node, ConnectError> {
        // While workers compute, the host's CPU is free for drafting.
        let device =
            if host_computes { Device::LocalCpu } else { Device::Remote(format!("pool {}", self.spec.name)) };
        let spec = NodeSpec {
            url: format!("http://{address}"),
            model: None,
            token: Some(token.clone()),
            name: Some(self.spec.name.clone()),
            wait_timeout: Duration::ZERO,
            supervised_device: Some(device),
        };
        Node::connect(&spec).await
    }
}

#[async_trait]
impl Launcher for PoolLauncher {
    type Handle = LaunchedPool;

    fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    async fn launch(
        &self,
        generation: u64,
        phase: &(dyn Fn(Phase) + Send + Sync),
    ) -> Result<LaunchedPool, LaunchError> {
        phase(Phase::Loading(0.0));
        let start = Instant::now();
        let probes = self.probe_workers().await;
        let unusable = probes.unusable().filter(|_| generation == FIRST_GENERATION);
        if let Some(error) = unusable {
            // At the first launch the script has a mistake. Later an unusable worker counts as unreachable.
            return Err(LaunchError::Permanent(error.into()));
        }
        let planned = self.plan(&probes).await?;
        let (tunnels, config) = self.open_tunnels(&planned).await?;
        let child = Child::start(&self.spec, planned.context, &config);
        let mut child = child.map_err(|error| LaunchError::Retry(PoolError::Process(error)))?;
        self.record_context(planned.context);
        let address = wait_until_loaded(&mut child, &tunnels, phase).await?;
        let node = self.connect(address, &child.token, config.host_layers > 0).await;
        let node = node.map_err(|error| LaunchError::Retry(error.into()))?;
        self.plan_file.write(&planned.plan, &planned.machines);
        let unreachable = probes.failed.iter().map(|(index, _)| self.spec.workers[*index].name.clone());
        let links = tunnels.iter().map(|(name, tunnel)| (name.clone(), tunnel.stats().clone()));
        let running = Arc::new(RunningPool {
            generation,
            node: Arc::new(node),
            process: child.id(),
            assignments: layout::assignments(&planned.plan, &planned.shape, &planned.machines),
            unreachable: unreachable.collect(),
            load_time: start.elapsed(),
            links: links.collect(),
        });
        Ok(LaunchedPool { child, tunnels, running })
    }

    async fn is_usable(&self, worker: &WorkerSpec) -> bool {
        let index = self.spec.workers.iter().position(|known| known == worker);
        let Some(machine) = index.and_then(|index| self.machines.get(index)) else { return false };
        worker_info(machine, worker).await.is_ok()
    }
}
