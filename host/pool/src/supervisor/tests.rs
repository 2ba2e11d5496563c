//! A supervisor whose pools are nothing but their outcome.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tightwad_core::testing::FakeModel;
use tightwad_core::{WorkerSpec, sync};

use super::*;
use crate::error::PoolError;

/// What one start comes to: the workers it is without, or why it failed.
type Outcome = Result<Vec<&'static str>, NoStart>;

/// Starts pools that are nothing but their outcome.
struct FakeStarter {
    spec: PoolSpec,
    outcomes: Mutex<VecDeque<Outcome>>,
    /// Ends the pool that runs.
    lose: Mutex<Option<oneshot::Sender<String>>>,
    back: AtomicBool,
    stopped: Arc<AtomicUsize>,
}

struct FakeLive {
    running: Arc<Running>,
    lost: oneshot::Receiver<String>,
    stopped: Arc<AtomicUsize>,
}

#[async_trait]
impl Alive for FakeLive {
    fn running(&self) -> &Arc<Running> {
        &self.running
    }

    async fn lost(&mut self) -> String {
        (&mut self.lost).await.unwrap()
    }

    async fn stop(self) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Start for FakeStarter {
    type Live = FakeLive;

    fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    async fn start(
        &self,
        generation: u64,
        phase: &(dyn Fn(Phase) + Send + Sync),
    ) -> Result<FakeLive, NoStart> {
        phase(Phase::Loading(0.0));
        let absent = sync::lock(&self.outcomes).pop_front().expect("one start too many")?;
        let (lose, lost) = oneshot::channel();
        *sync::lock(&self.lose) = Some(lose);
        let running = Running {
            generation,
            node: Arc::new(FakeModel::new("pool", "yes")),
            process: None,
            parts: Vec::new(),
            absent: absent.into_iter().map(str::to_owned).collect(),
            loading: Duration::ZERO,
            meters: Vec::new(),
        };
        Ok(FakeLive { running: Arc::new(running), lost, stopped: self.stopped.clone() })
    }

    async fn answers(&self, _: &WorkerSpec) -> bool {
        self.back.load(Ordering::Relaxed)
    }
}

/// Makes room a given number of times.
struct Room(AtomicUsize);

#[async_trait]
impl MakeRoom for Room {
    async fn make_room(&self, _: &PoolSpec) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// A supervisor at work, seen from outside.
struct Pool {
    starter: Arc<FakeStarter>,
    usage: Arc<Usage>,
    orders: mpsc::Sender<Order>,
    phase: watch::Receiver<Phase>,
}

impl Pool {
    /// A pool with the worker `w1`, told to load.
    async fn loading(ttl: Option<u64>, room: usize, outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let spec = PoolSpec {
            path: "model.gguf".into(),
            name: "pool".to_owned(),
            workers: WorkerSpec::new("127.0.0.1:1", None, Some("w1".to_owned())).into_iter().collect(),
            local: false,
            context: None,
            slots: 1,
            queue: None,
            threads: None,
            plugin: None,
            pins: Vec::new(),
            ttl: ttl.map(Duration::from_secs),
            pinned: false,
            on_demand: true,
            patience: Duration::from_secs(60),
        };
        let starter = Arc::new(FakeStarter {
            spec,
            outcomes: Mutex::new(outcomes.into_iter().collect()),
            lose: Mutex::default(),
            back: AtomicBool::new(false),
            stopped: Arc::default(),
        });
        let (shown, phase) = watch::channel(Phase::Unloaded);
        let (orders, inbox) = mpsc::channel(8);
        let usage = Arc::new(Usage::new());
        let supervisor = Supervisor {
            starter: starter.clone(),
            room: Arc::new(Room(AtomicUsize::new(room))),
            usage: usage.clone(),
            phase: shown,
            orders: inbox,
            generation: 0,
        };
        tokio::spawn(supervisor.run());
        orders.send(Order::Load).await.unwrap();
        Self { starter, usage, orders, phase }
    }

    /// Waits until it is what `wanted` says.
    async fn until(&mut self, wanted: &str) -> Phase {
        self.phase.wait_for(|phase| phase.to_string() == wanted).await.unwrap().clone()
    }

    /// Waits until its start number `generation` answers.
    async fn ready(&mut self, generation: u64) {
        let is = |phase: &Phase| matches!(phase, Phase::Ready(own) if own.generation == generation);
        self.phase.wait_for(is).await.unwrap();
    }

    fn stopped(&self) -> usize {
        self.starter.stopped.load(Ordering::Relaxed)
    }
}

fn again() -> Outcome {
    Err(NoStart::Again(PoolError::Refused("no luck".to_owned())))
}

fn too_big(lost: bool) -> Outcome {
    Err(NoStart::TooBig { error: PoolError::TooBig("too big".to_owned()), lost })
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_lost_starts_again_at_once() {
    let mut pool = Pool::loading(None, 0, [Ok(vec![]), Ok(vec![])]).await;
    pool.ready(1).await;
    let begun = Instant::now();
    let lose = sync::lock(&pool.starter.lose).take().unwrap();
    lose.send("worker 'w1': gone".to_owned()).unwrap();
    pool.ready(2).await;
    assert_eq!((begun.elapsed(), pool.stopped()), (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn starts_that_fail_are_tried_again_ever_more_slowly() {
    let begun = Instant::now();
    let mut pool = Pool::loading(None, 0, [again(), too_big(true), again(), Ok(vec![])]).await;
    pool.until("replanning: no luck").await;
    pool.ready(4).await;
    assert_eq!(begun.elapsed(), (0..3).map(|failure| BACKOFF.delay(failure)).sum::<Duration>());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_help_itself_fails_and_is_tried_when_it_is_asked_for() {
    let never = Err(NoStart::Never(PoolError::Refused("no such plan".to_owned())));
    let mut pool = Pool::loading(None, 0, [never, too_big(false), Ok(vec![])]).await;
    for wanted in ["failed: no such plan", "failed: too big"] {
        pool.until(wanted).await;
        pool.orders.send(Order::Load).await.unwrap();
    }
    pool.ready(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_does_not_fit_takes_the_room_of_another_one() {
    // The machine finds out a moment later that its memory is free.
    let mut pool = Pool::loading(None, 1, [too_big(false), too_big(false), Ok(vec![])]).await;
    pool.ready(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_unloaded_finishes_what_runs() {
    let mut pool = Pool::loading(None, 0, [Ok(vec![])]).await;
    pool.ready(1).await;
    let in_use = pool.usage.begin();
    let (done, mut unloaded) = oneshot::channel();
    pool.orders.send(Order::Unload(done)).await.unwrap();
    pool.until("finishing its requests").await;
    sleep(WELL).await;
    assert!(unloaded.try_recv().is_err() && pool.stopped() == 0);
    drop(in_use);
    unloaded.await.unwrap();
    assert_eq!((pool.until("unloaded").await.to_string(), pool.stopped()), ("unloaded".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_nobody_uses_goes_by_itself() {
    let mut pool = Pool::loading(Some(30), 0, [Ok(vec![])]).await;
    pool.ready(1).await;
    let (begun, in_use) = (Instant::now(), pool.usage.begin());
    sleep(WELL).await;
    drop(in_use);
    pool.until("unloaded").await;
    let expected = WELL + Duration::from_secs(30);
    assert!((expected..expected + 2 * LOOK).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_is_taken_once_the_pool_has_time() {
    let mut pool = Pool::loading(None, 0, [Ok(vec!["w1"]), Ok(vec![])]).await;
    pool.until("degraded: without w1").await;
    let (begun, in_use) = (Instant::now(), pool.usage.begin());
    pool.starter.back.store(true, Ordering::Relaxed);
    pool.ready(2).await;
    assert!((BUSY..BUSY + 2 * LOOK).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    drop(in_use);
}
