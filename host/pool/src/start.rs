//! Starting a pool: look at the workers, place the layers, open the tunnels, load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::{join_all, select_all};
use tightwad_core::{PoolSpec, Processor, Token, WorkerSpec};
use tightwad_engine::pool::{self as pool, ModelShape, PoolConfig};
use tightwad_engine::processors;
use tightwad_modes::{Machine, PlacementPlugin, Plan, Refusal, Shape};
use tightwad_net::machine_client;
use tightwad_node::{ConnectError, Node, NodeSpec};
use tightwad_sandbox::{Loaded, PluginError};
use tightwad_tunnel::{FarEnd, Tunnel};

use crate::child::{Child, PoolSaid};
use crate::error::PoolError;
use crate::kept::KeptPlan;
use crate::launch::{Alive, NoStart, Start};
use crate::layout;
use crate::state::{Phase, Running};
use crate::survey::{Absent, Found, facts, survey};

/// The name of this machine in plans.
pub(crate) const HERE: &str = "here";

/// How long a connection to a worker may take to come about.
const CONNECT: Duration = Duration::from_secs(3);

/// The first start of a pool.
pub(crate) const FIRST: u64 = 1;

/// What a start needs to know.
pub(crate) struct Starter {
    pub spec: PoolSpec,
    pub model: ModelShape,
    pub plugin: Arc<PlacementPlugin>,
    /// The chat template knows tools.
    pub tools: bool,
    pub http: reqwest::Client,
    /// The plan of the last time.
    pub kept: KeptPlan,
    /// Speed of this machine, measured when it is first needed.
    pub speed: tokio::sync::OnceCell<u64>,
    /// Tokens per sequence of the first start and of the last one; 0: none yet.
    contexts: [AtomicU32; 2],
}

/// The workers that answered, and what is wrong with the others.
pub(crate) struct Survey {
    pub found: Vec<(usize, Found)>,
    pub absent: Vec<(usize, Absent)>,
}

impl Survey {
    /// Why a worker that answers cannot be used, if there is one.
    pub(crate) fn refused(&self) -> Option<Absent> {
        let refused = self.absent.iter().find(|(_, absent)| matches!(absent, Absent::Refused(_)));
        refused.map(|(_, absent)| absent.clone())
    }

    /// What is wrong with those that are not there.
    fn missing(&self) -> String {
        let absent: Vec<String> = self.absent.iter().map(|(_, absent)| absent.to_string()).collect();
        absent.join("; ")
    }
}

/// A plan with what it was made of.
pub(crate) struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What it places.
    pub shape: Shape,
    /// Tokens per sequence.
    pub context: u32,
    /// On what.
    pub machines: Vec<Machine>,
    /// For each machine, its number among the workers, and whether it computes with its processor;
    /// `None`: this machine.
    pub workers: Vec<Option<(usize, bool)>>,
}

/// A pool that runs; it ends when dropped.
pub(crate) struct Live {
    child: Child,
    /// By name of the worker.
    tunnels: Vec<(String, Tunnel)>,
    running: Arc<Running>,
}

#[async_trait]
impl Alive for Live {
    fn running(&self) -> &Arc<Running> {
        &self.running
    }

    async fn lost(&mut self) -> String {
        let broken = |(name, tunnel): &(String, Tunnel)| {
            let (name, fault) = (name.clone(), tunnel.fault());
            fault.map(|fault| format!("worker '{name}': {}", fault.0))
        };
        let ended = tokio::select! {
            ended = self.child.ended() => ended.to_string(),
            fault = any_broken(&self.tunnels) => return fault,
        };
        // The process ends because a worker is lost, and the tunnel may know only now.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.tunnels.iter().find_map(broken).unwrap_or(ended)
    }

    async fn stop(self) {
        self.child.stop().await;
    }
}

/// Completes when a tunnel breaks.
async fn any_broken(tunnels: &[(String, Tunnel)]) -> String {
    if tunnels.is_empty() {
        return std::future::pending().await;
    }
    let broken = |(name, tunnel): &'_ (String, Tunnel)| {
        let name = name.clone();
        let broken = tunnel.watch();
        Box::pin(async move { format!("worker '{name}': {}", broken.broken().await.0) })
    };
    select_all(tunnels.iter().map(broken)).await.0
}

impl Starter {
    /// Reads nothing and starts nothing yet.
    pub(crate) fn new(
        spec: PoolSpec,
        model: ModelShape,
        plugin: Arc<PlacementPlugin>,
        tools: bool,
    ) -> Result<Self, PoolError> {
        let http = machine_client().connect_timeout(CONNECT).build()?;
        let kept = KeptPlan::of(&spec, &model);
        let (speed, contexts) = (tokio::sync::OnceCell::new(), [AtomicU32::new(0), AtomicU32::new(0)]);
        Ok(Self { spec, model, plugin, tools, http, kept, speed, contexts })
    }

    /// Tokens per sequence: of the last start, or of the best one possible.
    pub(crate) fn context(&self) -> u32 {
        match self.contexts[1].load(Ordering::Relaxed) {
            0 => layout::contexts(&self.spec, &self.model).first().copied().unwrap_or_default(),
            known => known,
        }
    }

    /// Looks at all workers at once.
    pub(crate) async fn survey(&self) -> Survey {
        let looks = join_all(self.spec.workers.iter().map(|worker| survey(&self.http, worker))).await;
        let mut survey = Survey { found: Vec::new(), absent: Vec::new() };
        for (index, look) in looks.into_iter().enumerate() {
            match look {
                Ok(found) => survey.found.push((index, found)),
                Err(absent) => survey.absent.push((index, absent)),
            }
        }
        survey
    }

    /// Asks the plugin where the layers go.
    pub(crate) async fn plan(&self, survey: &Survey) -> Result<Planned, NoStart> {
        if survey.found.is_empty() && !self.spec.local {
            return Err(NoStart::Again(PoolError::NoWorker { reasons: survey.missing() }));
        }
        let (mut machines, mut workers) = (vec![self.here().await.map_err(NoStart::Never)?], vec![None]);
        for (index, found) in &survey.found {
            machines.push(self.machine(*index, found));
            workers.push(Some((*index, !found.facts.gpu)));
        }
        let (shape, context, placed) = self.place(&machines).await;
        let missing = || match survey.absent.is_empty() {
            true => String::new(),
            false => format!(" ({})", survey.missing()),
        };
        match placed.map_err(|error| NoStart::Never(error.into()))? {
            Ok(plan) => {
                layout::check(&plan, &shape, &machines).map_err(|source| {
                    NoStart::Never(PoolError::Plan { plugin: self.plugin.label().to_owned(), source })
                })?;
                Ok(Planned { plan, shape, context, machines, workers })
            }
            Err(Refusal::TooBig(shortage)) => {
                let error = PoolError::TooBig(layout::too_big(&shortage, &shape, &machines) + &missing());
                Err(NoStart::TooBig { error, lost: !survey.absent.is_empty() })
            }
            Err(Refusal::Other(reason)) => Err(NoStart::Never(PoolError::Refused(reason + &missing()))),
        }
    }

    /// Lets the plugin place the model, with the longest sequences that fit.
    async fn place(&self, machines: &[Machine]) -> (Shape, u32, Result<Result<Plan, Refusal>, PluginError>) {
        let before = self.kept.read(machines);
        let first = self.contexts[0].load(Ordering::Relaxed);
        let mut contexts = layout::contexts(&self.spec, &self.model);
        // Later starts have no more than the first one, and less only as long as workers are missing.
        contexts.retain(|context| first == 0 || *context <= first);
        let mut contexts = contexts.into_iter();
        loop {
            let context = contexts.next().unwrap_or(first);
            let shape = layout::shape(&self.spec, &self.model, context);
            let placed = self.plugin.place(&shape, machines, before.as_ref()).await;
            if contexts.len() == 0 || !matches!(placed, Ok(Err(Refusal::TooBig(_)))) {
                return (shape, context, placed);
            }
        }
    }

    async fn here(&self) -> Result<Machine, PoolError> {
        let local = self.spec.local;
        let threads = self.spec.threads.map_or_else(processors, |threads| threads as usize);
        let measured = self.speed.get_or_try_init(|| async move {
            let measured = tokio::task::spawn_blocking(move || pool::measure_speed(threads)).await;
            Ok::<u64, PoolError>(measured??.0)
        });
        let speed = *measured.await?;
        let free = pool::device()?.free;
        Ok(Machine {
            name: HERE.to_owned(),
            memory: free / 10 * 9,
            speed,
            bandwidth: 0,
            round_trip: 0,
            here: true,
            max_layers: if local { u32::MAX } else { 0 },
        })
    }

    fn machine(&self, index: usize, found: &Found) -> Machine {
        Machine {
            name: self.spec.workers[index].name.clone(),
            memory: found.facts.free,
            speed: found.facts.speed,
            bandwidth: found.bandwidth,
            round_trip: u64::try_from(found.round_trip.as_nanos()).unwrap_or(u64::MAX),
            here: false,
            max_layers: u32::MAX,
        }
    }

    /// Notes the context that a start uses; the first of them all is what the endpoint has promised.
    fn began_with(&self, context: u32) {
        let [first, last] = &self.contexts;
        let _ = first.compare_exchange(0, context, Ordering::Relaxed, Ordering::Relaxed);
        last.store(context, Ordering::Relaxed);
    }

    /// Ways to the workers of a plan, and what the process of the pool loads through them.
    async fn tunnels(&self, planned: &Planned) -> Result<(Vec<(String, Tunnel)>, PoolConfig), NoStart> {
        let again = |error| NoStart::Again(PoolError::Tunnel(error));
        let mut tunnels = Vec::new();
        let mut addresses = vec![None; planned.machines.len()];
        for share in &planned.plan.shares {
            let machine = share.machine as usize;
            let Some((worker, on_processor)) = planned.workers[machine] else { continue };
            let worker = &self.spec.workers[worker];
            let (url, token) = (worker.url.clone(), worker.token.clone());
            let far = FarEnd { url, token, on_processor };
            let tunnel = Tunnel::open(self.http.clone(), far).await.map_err(again)?;
            addresses[machine] = Some(tunnel.address());
            tunnels.push((worker.name.clone(), tunnel));
        }
        let (plan, machines) = (&planned.plan, &planned.machines);
        let config = layout::config(plan, machines, |machine| addresses[machine], &self.spec.pins);
        Ok((tunnels, config.map_err(|error| NoStart::Never(error.into()))?))
    }

    async fn node(
        &self,
        address: std::net::SocketAddr,
        token: &Token,
        here: bool,
    ) -> Result<Node, ConnectError> {
        // Drafting here while workers compute is time won.
        let processor =
            if here { Processor::Here } else { Processor::At(format!("pool {}", self.spec.name)) };
        let spec = NodeSpec {
            url: format!("http://{address}"),
            model: None,
            token: Some(token.clone()),
            name: Some(self.spec.name.clone()),
            patience: Duration::ZERO,
            watched: Some(processor),
        };
        Node::connect(&spec).await
    }
}

#[async_trait]
impl Start for Starter {
    type Live = Live;

    fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    async fn start(&self, generation: u64, phase: &(dyn Fn(Phase) + Send + Sync)) -> Result<Live, NoStart> {
        phase(Phase::Loading(0.0));
        let begun = Instant::now();
        let survey = self.survey().await;
        let refused = survey.refused().filter(|_| generation == FIRST);
        if let Some(refused) = refused {
            // What the script says is wrong. Later on, a worker that refuses is one that is not there.
            return Err(NoStart::Never(refused.into()));
        }
        let planned = self.plan(&survey).await?;
        let (tunnels, config) = self.tunnels(&planned).await?;
        let child = Child::start(&self.spec, planned.context, &config);
        let mut child = child.map_err(|error| NoStart::Again(PoolError::Process(error)))?;
        self.began_with(planned.context);
        let address = loop {
            let said = tokio::select! {
                said = child.said() => said.map_err(|error| NoStart::Again(error.into())),
                fault = any_broken(&tunnels) => Err(NoStart::Again(PoolError::TunnelBroke(fault))),
            };
            match said? {
                PoolSaid::Loading(done) => phase(Phase::Loading(done)),
                PoolSaid::Listening(address) => break address,
                PoolSaid::Failed(reason) => return Err(NoStart::Never(PoolError::NotLoaded(reason))),
            }
        };
        let node = self.node(address, &child.token, config.here > 0).await;
        let node = node.map_err(|error| NoStart::Again(error.into()))?;
        self.kept.write(&planned.plan, &planned.machines);
        let absent = survey.absent.iter().map(|(index, _)| self.spec.workers[*index].name.clone());
        let meters = tunnels.iter().map(|(name, tunnel)| (name.clone(), tunnel.meter().clone()));
        let running = Arc::new(Running {
            generation,
            node: Arc::new(node),
            process: child.id(),
            parts: layout::placed(&planned.plan, &planned.shape, &planned.machines),
            absent: absent.collect(),
            loading: begun.elapsed(),
            meters: meters.collect(),
        });
        Ok(Live { child, tunnels, running })
    }

    async fn answers(&self, worker: &WorkerSpec) -> bool {
        facts(&self.http, worker).await.is_ok()
    }
}
