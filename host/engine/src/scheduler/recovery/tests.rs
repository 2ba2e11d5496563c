use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, mpsc};

use llguidance::api::TopLevelGrammar;
use tightwad_core::{Draft, Sampling, SamplingSpec, TokenId};
use tightwad_zoo::{Kind, Zoo};
use tokio::sync::oneshot;

use super::*;
use crate::config::EngineConfig;
use crate::engine::Engine;
use crate::scheduler::command::Command;
use crate::scheduler::queue::Sequences;
use crate::scheduler::stats::Stats;
use crate::session::Session;
use crate::session_params::SessionParams;
use crate::sizing::RollbackMemory;
use crate::weights::Weights;

const MAX_TOKENS: u32 = 24;
const KINDS: [Kind; 2] = [Kind::Llama, Kind::Mamba2];

fn weights(kind: Kind) -> Arc<Weights> {
    crate::runtime::select_row_invariant_kernels();
    let models = std::env::var_os("TIGHTWAD_MODELS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"), Into::into);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp/zoo");
    let path = Zoo::new(&models.join("smollm2-135m-instruct.gguf"), &folder).model(kind).unwrap();
    Weights::load(&path, 0).unwrap()
}

fn config() -> EngineConfig {
    EngineConfig { context: 256, slots: 3, threads: 1, ..EngineConfig::default() }
}

fn params(seed: u32) -> SessionParams {
    let spec = SamplingSpec { temperature: 0.8, seed: u64::from(seed), ..SamplingSpec::default() };
    SessionParams {
        prompt: (0..30).map(|place| 400 + 31 * place + seed).collect(),
        output: Vec::new(),
        sampling: Sampling::new(spec).unwrap(),
        constraint: None,
        max_tokens: MAX_TOKENS,
        prefill: true,
    }
}

/// Parameters whose constraint allows any text and calls `before_mask` at each token.
fn constrained(
    weights: &Weights,
    seed: u32,
    before_mask: impl Fn() + Send + Sync + 'static,
) -> SessionParams {
    let grammar = TopLevelGrammar::from_lark("start: /(?s:.*)/".to_owned());
    let mut constraint = weights.constraint(grammar).unwrap();
    constraint.before_mask = Some(Arc::new(before_mask));
    SessionParams { constraint: Some(Arc::new(constraint)), ..params(seed) }
}

/// A function that panics at its calls number `first` to `last`.
fn panicking(first: usize, last: usize) -> impl Fn() + Send + Sync {
    let calls = AtomicUsize::new(0);
    move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        assert!(!(first..=last).contains(&call), "call {call} of the mask");
    }
}

async fn decode(session: &mut Session, tokens: &mut Vec<TokenId>) -> Result<(), SessionError> {
    let mut steps = session.decode(MAX_TOKENS)?;
    while let Some(step) = steps.recv().await {
        tokens.extend(step?.committed.iter().map(|committed| committed.token));
    }
    Ok(())
}

async fn generate(engine: &Engine, params: SessionParams) -> Result<Vec<TokenId>, SessionError> {
    let mut tokens = Vec::new();
    decode(&mut engine.open(params).await?, &mut tokens).await?;
    Ok(tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_continue_with_the_same_tokens_after_a_panic() {
    for kind in KINDS {
        let weights = weights(kind);
        let engine = Engine::start(weights.clone(), config()).unwrap();
        let truths = [
            generate(&engine, constrained(&weights, 1, || ())).await.unwrap(),
            generate(&engine, params(2)).await.unwrap(),
            generate(&engine, params(3)).await.unwrap(),
        ];
        let faulty = constrained(&weights, 1, panicking(10, 10));
        let (first, second, third) = tokio::join!(
            generate(&engine, faulty),
            generate(&engine, params(2)),
            generate(&engine, params(3))
        );
        assert_eq!([first.unwrap(), second.unwrap(), third.unwrap()], truths, "{kind:?}");
        assert_eq!((engine.stats().restarts(), engine.stats().health()), (1, Health::Ready));
        wait_for(engine.stats(), |stats| stats.active_sequences() == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sequence_that_always_panics_fails_alone() {
    let weights = weights(Kind::Llama);
    let engine = Engine::start(weights.clone(), config()).unwrap();
    let truths = [generate(&engine, params(2)).await.unwrap(), generate(&engine, params(3)).await.unwrap()];
    let faulty = constrained(&weights, 1, panicking(10, usize::MAX));
    let (faulty, second, third) =
        tokio::join!(generate(&engine, faulty), generate(&engine, params(2)), generate(&engine, params(3)));
    let error = faulty.unwrap_err();
    assert!(
        matches!(&error, SessionError::Panicked { panics: 2, reason } if reason.contains("mask")),
        "{error}"
    );
    assert_eq!([second.unwrap(), third.unwrap()], truths);
    assert_eq!((engine.stats().restarts(), engine.stats().health()), (2, Health::Ready));
    // The next request finds a working engine.
    assert_eq!(generate(&engine, params(2)).await.unwrap(), truths[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_each_kind_survives_a_panic() {
    let weights = weights(Kind::Llama);
    let engine = Engine::start(weights.clone(), config()).unwrap();
    let truth = generate(&engine, constrained(&weights, 1, || ())).await.unwrap();
    // Each verification checks three positions and panics at one of them once.
    let mut session = engine.open(constrained(&weights, 1, panicking(2, 2))).await.unwrap();
    let mut tokens = Vec::new();
    while tokens.len() < truth.len() {
        let draft: Vec<TokenId> = truth[tokens.len()..].iter().copied().take(3).collect();
        let verified = session.verify(Draft::from(draft)).await.unwrap();
        tokens.extend(verified.committed.iter().map(|committed| committed.token));
    }
    assert_eq!(tokens, truth);
    drop(session);
    // A drafter, an unverified append, and a resumed session.
    let drafter = SessionParams { prefill: false, ..constrained(&weights, 1, panicking(1, 1)) };
    let mut session = engine.open(drafter).await.unwrap();
    let proposals = session.propose(truth[..5].to_vec(), 4, 0.0).await.unwrap();
    assert_eq!(proposals.iter().map(|proposal| proposal.token).collect::<Vec<_>>(), truth[5..9]);
    drop(session);
    let mut session = engine.open(constrained(&weights, 1, panicking(1, 1))).await.unwrap();
    assert_eq!(session.accept(truth[..4].to_vec()).await.unwrap(), 4);
    let mut rest = Vec::new();
    decode(&mut session, &mut rest).await.unwrap();
    assert_eq!(rest, truth[4..]);
    assert_eq!(engine.stats().restarts(), 3);
    drop(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_survive_the_panic_of_another_sequence() {
    let weights = weights(Kind::Llama);
    let engine = Engine::start(weights.clone(), config()).unwrap();
    let truth = generate(&engine, constrained(&weights, 1, || ())).await.unwrap();
    let scores = engine.open(params(2)).await.unwrap().score(truth.clone()).await.unwrap();
    let mut scoring = engine.open(params(2)).await.unwrap();
    let (scored, generated) = tokio::join!(
        scoring.score(truth.clone()),
        generate(&engine, constrained(&weights, 1, panicking(0, 0)))
    );
    assert_eq!((scored.unwrap(), generated.unwrap()), (scores, truth));
}

/// Waits until `stats` meets the condition.
fn wait_for(stats: &Stats, condition: impl Fn(&Stats) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition(stats) {
        assert!(Instant::now() < deadline, "{stats:?}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Runs an engine that builds a new context only while `has_memory` is true.
fn start_engine(
    weights: &Arc<Weights>,
    stats: &Arc<Stats>,
    has_memory: &Arc<AtomicBool>,
    command_rx: mpsc::Receiver<Command>,
) -> thread::JoinHandle<()> {
    let (weights, stats, has_memory) = (weights.clone(), stats.clone(), has_memory.clone());
    thread::spawn(move || {
        let config = config();
        let context = BatchContext::new(&weights, &config, RollbackMemory::default()).unwrap();
        let sequences = Sequences::new(weights.clone(), &config, stats.clone(), 0.0);
        let restart_backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
        let rebuild = || match has_memory.load(Ordering::Relaxed) {
            true => BatchContext::new(&weights, &config, RollbackMemory::default()),
            false => Err(LoadError::OutOfMemory { slots: 3, context: 256 }),
        };
        run(context, rebuild, &mut EngineState { sequences, command_rx, stats, restart_backoff });
    })
}

#[test]
fn requests_fail_while_no_context_can_be_built_and_succeed_afterwards() {
    let weights = weights(Kind::Llama);
    let (commands, command_rx) = mpsc::channel();
    let (stats, has_memory) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    let open = |id: u64, params: SessionParams| {
        stats.queued_requests.fetch_add(1, Ordering::AcqRel);
        let (reply, answer) = oneshot::channel();
        commands.send(Command::Open { id, params: Box::new(params), reply }).unwrap();
        let session = Session { id, commands: commands.clone(), reused_tokens: 0 };
        (session, answer)
    };
    let engine = start_engine(&weights, &stats, &has_memory, command_rx);
    let (mut session, opened) = open(1, constrained(&weights, 1, panicking(3, 3)));
    opened.blocking_recv().unwrap().unwrap();
    let mut steps = session.decode(MAX_TOKENS).unwrap();
    let error = loop {
        match steps.blocking_recv().unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, SessionError::Failing(reason) if reason.contains("not enough memory")),
        "{error}"
    );
    wait_for(&stats, |stats| matches!(stats.health(), Health::Failing(_)));
    let refused = open(2, params(2)).1.blocking_recv().unwrap();
    assert!(matches!(refused, Err(SessionError::Failing(_))), "{refused:?}");
    has_memory.store(true, Ordering::Relaxed);
    wait_for(&stats, |stats| stats.health().is_ready());
    let (next, opened) = open(3, params(2));
    assert!(opened.blocking_recv().unwrap().is_ok());
    drop((session, next, steps, commands));
    engine.join().unwrap();
    assert_eq!((stats.active_sequences(), stats.queued_requests()), (0, 0));
}
