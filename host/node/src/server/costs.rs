//! What a shared pass costs each request: the same in one process, on a node that several hosts share, and on a
//! pool. The clock is a fake one, so that the figures are exact.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_core::{Backend, Clock, Draft, Processor, Prompt, Request, Target, Verified};
use tokio::sync::oneshot;

use crate::client::model::{Node, NodeSpec};
use crate::testing::{FakeNode, Model, PassTime, Passes};

/// Requests that share each pass.
const SHARING: usize = 3;
/// Time of a pass of all of them.
const PASS: Duration = Duration::from_millis(18);
/// Time between two calls that arrive.
const STAGGER: Duration = Duration::from_millis(3);

/// A model whose passes take fake time and wait for all requests.
struct Shared {
    start: Instant,
    microseconds: AtomicU64,
    waiting: Mutex<Vec<(Instant, usize, oneshot::Sender<PassTime>)>>,
}

impl Shared {
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
        Clock::of(move || shared.now())
    }

    /// Waits for the others; the last one makes the pass.
    fn join(&self, rows: usize, reply: oneshot::Sender<PassTime>) {
        let mut waiting = self.waiting.lock().unwrap();
        waiting.push((self.now(), rows, reply));
        if waiting.len() < SHARING {
            return;
        }
        self.advance(PASS);
        for (asked, rows, reply) in waiting.drain(..) {
            // 8 ms for a row, and 1 ms for each further one.
            let cost = Duration::from_millis(7 + rows as u64);
            let took = self.now() - asked;
            let _ = reply.send((took, cost));
        }
    }
}

#[async_trait]
impl Passes for Shared {
    async fn pass(&self, rows: usize) -> PassTime {
        let (reply, answer) = oneshot::channel();
        self.join(rows, reply);
        answer.await.unwrap()
    }
}

/// A session of `backend`.
async fn session(backend: &dyn Backend) -> Box<dyn Target> {
    let request = Arc::new(Request { prompt: Prompt::Text("x".to_owned()), ..Request::default() });
    backend.target().unwrap().open_target(&request, None).await.unwrap().session
}

/// What a verification of `draft` costs its request, or where `decode` says so, a decode of two tokens.
async fn cost(target: &mut dyn Target, draft: &Draft, decode: bool, clock: &Clock) -> Duration {
    let start = clock.now();
    if !decode {
        let verified = target.verify(draft).await.unwrap();
        return verified.charged(clock.since(start));
    }
    let mut all = Verified::default();
    target.decode(2).await.unwrap();
    while let Some(step) = target.step().await.unwrap() {
        all.took += step.took;
        all.cost += step.cost;
    }
    all.charged(clock.since(start))
}

/// What requests on `backends` are charged: each verifies a draft of its own, then each decodes two tokens.
async fn charged(shared: &Arc<Shared>, backends: &[Arc<dyn Backend>]) -> Vec<Duration> {
    let mut sessions = Vec::new();
    for backend in backends {
        sessions.push(session(backend.as_ref()).await);
    }
    let mut charged = Vec::new();
    for decode in [false, true] {
        let mut tasks = Vec::new();
        for (index, mut session) in sessions.drain(..).enumerate() {
            let (draft, clock): (Draft, Clock) = (vec![9; 4 * index].into(), shared.clock());
            tasks.push(tokio::spawn(async move {
                let cost = cost(session.as_mut(), &draft, decode, &clock).await;
                (session, cost)
            }));
            // The next one comes later; a pass begins with the last.
            while index + 1 < SHARING && shared.waiting.lock().unwrap().len() <= index {
                tokio::task::yield_now().await;
            }
            if index + 1 < SHARING {
                shared.advance(STAGGER);
            }
        }
        for task in tasks {
            let (session, cost) = task.await.unwrap();
            sessions.push(session);
            charged.push(cost);
        }
    }
    charged
}

/// The same model behind a node, by one connection for each host.
async fn behind_a_node(
    shared: &Arc<Shared>,
    watched: Option<Processor>,
) -> (FakeNode, Vec<Arc<dyn Backend>>) {
    let model: Arc<dyn Backend> = Arc::new(Model::with_passes(shared.clone()));
    let node = FakeNode::lending([("model", model)], None, shared.clock()).await;
    let spec = NodeSpec { watched, ..node.spec() };
    let mut hosts: Vec<Arc<dyn Backend>> = Vec::new();
    for _ in 0..SHARING {
        hosts.push(Arc::new(Node::connect_by(&spec, shared.clock()).await.unwrap()));
    }
    (node, hosts)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_several_hosts_are_charged_as_in_one_process() {
    let shared = Shared::new();
    let here: Vec<Arc<dyn Backend>> =
        (0..SHARING).map(|_| Arc::new(Model::with_passes(shared.clone())) as _).collect();
    let truth = charged(&shared, &here).await;
    let milliseconds: Vec<u128> = truth.iter().map(Duration::as_millis).collect();
    // Rows of their own; waiting for the others is free.
    assert_eq!(milliseconds, [8, 12, 16, 16, 16, 16]);
    // A node that several hosts share, and the process of a pool, which is watched.
    for watched in [None, Some(Processor::Here)] {
        let shared = Shared::new();
        let (_node, hosts) = behind_a_node(&shared, watched).await;
        assert_eq!(charged(&shared, &hosts).await, truth);
    }
}
