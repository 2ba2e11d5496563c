//! Tests of attributed costs. A request pays the same for a shared pass in one process, on a shared node, and
//! in a pool. A fake clock makes the figures exact.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_core::{Backend, Clock, Device, Draft, Prompt, Request, StepResult, Target};
use tokio::sync::oneshot;

use crate::client::model::{Node, NodeSpec};
use crate::testing::{FakeModel, FakeNode, PassTime, PassTimer};

/// Requests that share each pass.
const SHARED_REQUESTS: usize = 3;
/// Time of a pass that all requests share.
const PASS_TIME: Duration = Duration::from_millis(18);
/// Time between the arrivals of two calls.
const ARRIVAL_INTERVAL: Duration = Duration::from_millis(3);

/// A model whose passes wait for all requests and take fake time.
struct SharedPasses {
    start: Instant,
    microseconds: AtomicU64,
    waiting: Mutex<Vec<(Instant, usize, oneshot::Sender<PassTime>)>>,
}

impl SharedPasses {
    fn new() -> Arc<Self> {
        let start = Instant::now();
        Arc::new(Self { start, microseconds: AtomicU64::new(0), waiting: Mutex::default() })
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.microseconds.load(Ordering::SeqCst))
    }

    fn advance(&self, time: Duration) {
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::SeqCst);
    }

    fn clock(self: &Arc<Self>) -> Clock {
        let shared = self.clone();
        Clock::from_fn(move || shared.now())
    }

    /// Adds a request to the pass; the last request runs the pass.
    fn join(&self, rows: usize, reply: oneshot::Sender<PassTime>) {
        let mut waiting = self.waiting.lock().unwrap();
        waiting.push((self.now(), rows, reply));
        if waiting.len() < SHARED_REQUESTS {
            return;
        }
        self.advance(PASS_TIME);
        for (arrival, rows, reply) in waiting.drain(..) {
            // One row costs 8 ms, and each further row 1 ms.
            let cost = Duration::from_millis(7 + rows as u64);
            let elapsed = self.now() - arrival;
            let _ = reply.send((elapsed, cost));
        }
    }
}

#[async_trait]
impl PassTimer for SharedPasses {
    async fn pass(&self, rows: usize) -> PassTime {
        let (reply, answer) = oneshot::channel();
        self.join(rows, reply);
        answer.await.unwrap()
    }
}

/// Opens a target session on `backend`.
async fn session(backend: &dyn Backend) -> Box<dyn Target> {
    let request = Arc::new(Request { prompt: Prompt::Text("x".into()), ..Request::default() });
    backend.target().unwrap().open_target(&request, None).await.unwrap().session
}

/// The attributed cost of verifying `draft`, or of decoding two tokens if `decode` is true.
async fn attributed_cost(target: &mut dyn Target, draft: &Draft, decode: bool, clock: &Clock) -> Duration {
    let start = clock.now();
    if !decode {
        let verified = target.verify(draft).await.unwrap();
        return verified.charged_time(clock.since(start));
    }
    let mut decoded = StepResult::default();
    target.decode(2).await.unwrap();
    while let Some(step) = target.step().await.unwrap() {
        decoded.elapsed += step.elapsed;
        decoded.cost += step.cost;
    }
    decoded.charged_time(clock.since(start))
}

/// The attributed costs of requests on `backends`: each verifies a draft of its own, then each decodes two
/// tokens.
async fn attributed_costs(shared: &Arc<SharedPasses>, backends: &[Arc<dyn Backend>]) -> Vec<Duration> {
    let mut sessions = Vec::new();
    for backend in backends {
        sessions.push(session(backend.as_ref()).await);
    }
    let mut costs = Vec::new();
    for decode in [false, true] {
        let mut tasks = Vec::new();
        for (index, mut session) in sessions.drain(..).enumerate() {
            let (draft, clock): (Draft, Clock) = (vec![9; 4 * index].into(), shared.clock());
            tasks.push(tokio::spawn(async move {
                let cost = attributed_cost(session.as_mut(), &draft, decode, &clock).await;
                (session, cost)
            }));
            // The next request arrives later; the last one starts the pass.
            while index + 1 < SHARED_REQUESTS && shared.waiting.lock().unwrap().len() <= index {
                tokio::task::yield_now().await;
            }
            if index + 1 < SHARED_REQUESTS {
                shared.advance(ARRIVAL_INTERVAL);
            }
        }
        for task in tasks {
            let (session, cost) = task.await.unwrap();
            sessions.push(session);
            costs.push(cost);
        }
    }
    costs
}

/// The same model on a node, with one connection per host.
async fn connect_hosts(
    shared: &Arc<SharedPasses>,
    supervised_device: Option<Device>,
) -> (FakeNode, Vec<Arc<dyn Backend>>) {
    let model: Arc<dyn Backend> = Arc::new(FakeModel::with_timer(shared.clone()));
    let node = FakeNode::with_models([("model", model)], None, shared.clock()).await;
    let spec = NodeSpec { supervised_device, ..node.spec() };
    let mut hosts: Vec<Arc<dyn Backend>> = Vec::new();
    for _ in 0..SHARED_REQUESTS {
        hosts.push(Arc::new(Node::connect_with_clock(&spec, shared.clock()).await.unwrap()));
    }
    (node, hosts)
}

#[tokio::test(flavor = "multi_thread")]
async fn cost_through_a_node_equals_cost_in_one_process() {
    let shared = SharedPasses::new();
    let backends: Vec<Arc<dyn Backend>> =
        (0..SHARED_REQUESTS).map(|_| Arc::new(FakeModel::with_timer(shared.clone())) as _).collect();
    let in_process = attributed_costs(&shared, &backends).await;
    let milliseconds: Vec<u128> = in_process.iter().map(Duration::as_millis).collect();
    // Each request pays for its own rows and not for waiting.
    assert_eq!(milliseconds, [8, 12, 16, 16, 16, 16]);
    // A node that several hosts share, and the supervised process of a pool.
    for supervised_device in [None, Some(Device::LocalCpu)] {
        let shared = SharedPasses::new();
        let (_node, hosts) = connect_hosts(&shared, supervised_device).await;
        assert_eq!(attributed_costs(&shared, &hosts).await, in_process);
    }
}
