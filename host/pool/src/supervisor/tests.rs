//! Tests of the supervisor with a fake launcher.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tightwad_core::testing::FakeModel;
use tightwad_core::{WorkerSpec, sync};

use super::*;
use crate::error::PoolError;

/// The result of one launch: the unreachable workers, or the error.
type Outcome = Result<Vec<&'static str>, LaunchError>;

/// A launcher that returns prepared outcomes.
struct FakeLauncher {
    spec: PoolSpec,
    outcomes: Mutex<VecDeque<Outcome>>,
    /// Makes the running pool fail.
    fail: Mutex<Option<oneshot::Sender<String>>>,
    workers_usable: AtomicBool,
    stopped: Arc<AtomicUsize>,
}

struct FakePool {
    running: Arc<RunningPool>,
    failed: oneshot::Receiver<String>,
    stopped: Arc<AtomicUsize>,
}

#[async_trait]
impl PoolHandle for FakePool {
    fn running(&self) -> &Arc<RunningPool> {
        &self.running
    }

    async fn wait_for_failure(&mut self) -> String {
        (&mut self.failed).await.unwrap()
    }

    async fn stop(self) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Launcher for FakeLauncher {
    type Handle = FakePool;

    fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    async fn launch(
        &self,
        generation: u64,
        phase: &(dyn Fn(Phase) + Send + Sync),
    ) -> Result<FakePool, LaunchError> {
        phase(Phase::Loading(0.0));
        let unreachable = sync::lock(&self.outcomes).pop_front().expect("no outcome is left")?;
        let (fail, failed) = oneshot::channel();
        *sync::lock(&self.fail) = Some(fail);
        let running = RunningPool {
            generation,
            node: Arc::new(FakeModel::new("pool", "yes")),
            process: None,
            assignments: Vec::new(),
            unreachable: unreachable.into_iter().map(str::to_owned).collect(),
            load_time: Duration::ZERO,
            links: Vec::new(),
        };
        Ok(FakePool { running: Arc::new(running), failed, stopped: self.stopped.clone() })
    }

    async fn is_usable(&self, _: &WorkerSpec) -> bool {
        self.workers_usable.load(Ordering::Relaxed)
    }
}

/// Evicts the given number of pools.
struct FakeEvictor(AtomicUsize);

#[async_trait]
impl Evictor for FakeEvictor {
    async fn evict_for(&self, _: &PoolSpec) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// A running supervisor.
struct FakeSupervision {
    launcher: Arc<FakeLauncher>,
    usage: Arc<Usage>,
    commands: mpsc::Sender<Command>,
    phase: watch::Receiver<Phase>,
    draining: watch::Sender<bool>,
}

impl FakeSupervision {
    /// Starts a supervisor of a pool with the worker `w1`, and sends the command to load.
    async fn load(
        idle_seconds: Option<u64>,
        evictions: usize,
        outcomes: impl IntoIterator<Item = Outcome>,
    ) -> Self {
        let spec = PoolSpec {
            path: "model.gguf".into(),
            name: "pool".to_owned(),
            workers: WorkerSpec::new("127.0.0.1:1", None, Some("w1".to_owned())).into_iter().collect(),
            include_host: false,
            context: None,
            slots: 1,
            max_queue: None,
            threads: None,
            policy: None,
            override_tensors: Vec::new(),
            idle_timeout: idle_seconds.map(Duration::from_secs),
            keep_loaded: false,
            on_demand: true,
            wait_timeout: Duration::from_secs(60),
        };
        let launcher = Arc::new(FakeLauncher {
            spec,
            outcomes: Mutex::new(outcomes.into_iter().collect()),
            fail: Mutex::default(),
            workers_usable: AtomicBool::new(false),
            stopped: Arc::default(),
        });
        let (phase_sender, phase) = watch::channel(Phase::Unloaded);
        let (commands, inbox) = mpsc::channel(8);
        let (usage, draining) = (Arc::new(Usage::new()), watch::Sender::new(false));
        let supervisor = Supervisor {
            launcher: launcher.clone(),
            evictor: Arc::new(FakeEvictor(AtomicUsize::new(evictions))),
            usage: usage.clone(),
            draining: draining.subscribe(),
            phase: phase_sender,
            commands: inbox,
            generation: 0,
        };
        tokio::spawn(supervisor.run());
        commands.send(Command::Load).await.unwrap();
        Self { launcher, usage, commands, phase, draining }
    }

    /// Waits until the phase has the text `text`.
    async fn until(&mut self, text: &str) -> Phase {
        self.phase.wait_for(|phase| phase.to_string() == text).await.unwrap().clone()
    }

    /// Waits until the pool of launch `generation` is ready.
    async fn ready(&mut self, generation: u64) {
        let is_ready =
            |phase: &Phase| matches!(phase, Phase::Ready(running) if running.generation == generation);
        self.phase.wait_for(is_ready).await.unwrap();
    }

    fn stopped(&self) -> usize {
        self.launcher.stopped.load(Ordering::Relaxed)
    }
}

fn retry() -> Outcome {
    Err(LaunchError::Retry(PoolError::Refused("no luck".to_owned())))
}

fn too_big(workers_missing: bool) -> Outcome {
    Err(LaunchError::TooBig { error: PoolError::TooBig("too big".to_owned()), workers_missing })
}

#[tokio::test(start_paused = true)]
async fn failed_pool_restarts_without_delay() {
    let mut pool = FakeSupervision::load(None, 0, [Ok(vec![]), Ok(vec![])]).await;
    pool.ready(1).await;
    let start = Instant::now();
    let fail = sync::lock(&pool.launcher.fail).take().unwrap();
    fail.send("worker 'w1': gone".to_owned()).unwrap();
    pool.ready(2).await;
    assert_eq!((start.elapsed(), pool.stopped()), (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn failed_launches_back_off() {
    let start = Instant::now();
    let mut pool = FakeSupervision::load(None, 0, [retry(), too_big(true), retry(), Ok(vec![])]).await;
    pool.until("replanning: no luck").await;
    pool.ready(4).await;
    assert_eq!(start.elapsed(), (0..3).map(|failure| LAUNCH_BACKOFF.delay(failure)).sum::<Duration>());
}

#[tokio::test(start_paused = true)]
async fn permanently_failed_pool_is_launched_again_by_a_command() {
    let permanent = Err(LaunchError::Permanent(PoolError::Refused("no such plan".to_owned())));
    let mut pool = FakeSupervision::load(None, 0, [permanent, too_big(false), Ok(vec![])]).await;
    for text in ["failed: no such plan", "failed: too big"] {
        pool.until(text).await;
        pool.commands.send(Command::Load).await.unwrap();
    }
    pool.ready(3).await;
}

#[tokio::test(start_paused = true)]
async fn pool_that_does_not_fit_evicts_another_one() {
    // The second launch fails because the worker has not freed the memory yet.
    let mut pool = FakeSupervision::load(None, 1, [too_big(false), too_big(false), Ok(vec![])]).await;
    pool.ready(1).await;
}

#[tokio::test(start_paused = true)]
async fn unload_waits_for_running_requests() {
    let mut pool = FakeSupervision::load(None, 0, [Ok(vec![])]).await;
    pool.ready(1).await;
    let usage = pool.usage.acquire();
    let (reply, mut unloaded) = oneshot::channel();
    pool.commands.send(Command::Unload(reply)).await.unwrap();
    pool.until("finishing its requests").await;
    sleep(STABLE_RUN_TIME).await;
    assert!(unloaded.try_recv().is_err() && pool.stopped() == 0);
    drop(usage);
    unloaded.await.unwrap();
    assert_eq!((pool.until("unloaded").await.to_string(), pool.stopped()), ("unloaded".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn unload_does_not_wait_for_ever() {
    let mut pool = FakeSupervision::load(None, 0, [Ok(vec![])]).await;
    pool.ready(1).await;
    let (start, _usage) = (Instant::now(), pool.usage.acquire());
    let (reply, unloaded) = oneshot::channel();
    pool.commands.send(Command::Unload(reply)).await.unwrap();
    unloaded.await.unwrap();
    assert_eq!((start.elapsed().as_secs(), pool.stopped()), (DRAIN_TIMEOUT.as_secs(), 1));
    pool.until("unloaded").await;
}

#[tokio::test(start_paused = true)]
async fn draining_pool_finishes_and_does_not_restart() {
    let mut pool = FakeSupervision::load(None, 0, [Ok(vec!["w1"])]).await;
    pool.until("degraded: without w1").await;
    pool.draining.send_replace(true);
    // A returned worker changes nothing.
    pool.launcher.workers_usable.store(true, Ordering::Relaxed);
    sleep(MIN_RUN_TIME_IN_USE).await;
    assert_eq!(pool.stopped(), 0);
    let fail = sync::lock(&pool.launcher.fail).take().unwrap();
    fail.send("worker 'w1': gone".to_owned()).unwrap();
    pool.until("failed: the host is shutting down").await;
}

#[tokio::test(start_paused = true)]
async fn idle_pool_unloads() {
    let mut pool = FakeSupervision::load(Some(30), 0, [Ok(vec![])]).await;
    pool.ready(1).await;
    let (start, usage) = (Instant::now(), pool.usage.acquire());
    sleep(STABLE_RUN_TIME).await;
    drop(usage);
    pool.until("unloaded").await;
    let expected = STABLE_RUN_TIME + Duration::from_secs(30);
    assert!((expected..expected + 2 * CHECK_INTERVAL).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn pool_in_use_waits_before_it_restarts_for_a_returned_worker() {
    let mut pool = FakeSupervision::load(None, 0, [Ok(vec!["w1"]), Ok(vec![])]).await;
    pool.until("degraded: without w1").await;
    let (start, usage) = (Instant::now(), pool.usage.acquire());
    pool.launcher.workers_usable.store(true, Ordering::Relaxed);
    pool.ready(2).await;
    assert!(
        (MIN_RUN_TIME_IN_USE..MIN_RUN_TIME_IN_USE + 2 * CHECK_INTERVAL).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
    drop(usage);
}
