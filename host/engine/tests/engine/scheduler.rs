//! The scheduler on a real model: SmolLM2, downloaded by `cargo xtask models`.
use tightwad_core::{Draft, FinishReason, Sampling, SamplingSpec, TokenId};
use tightwad_engine::{Engine, EngineConfig, SessionError, SessionParams};

use crate::support::{generate, load, params};

fn config() -> EngineConfig {
    EngineConfig { context: 512, slots: 4, ..EngineConfig::default() }
}

async fn decode(engine: &Engine, text: &str, temperature: f32, max_tokens: u32) -> Vec<TokenId> {
    generate(engine, params(engine, text, temperature, max_tokens).await).await
}

/// Verifies drafts of changing length and quality: correct, wrong, and correct up to a point.
async fn decode_with_drafts(
    engine: &Engine,
    text: &str,
    temperature: f32,
    truth: &[TokenId],
) -> (Vec<TokenId>, u32) {
    let max_tokens = truth.len() as u32;
    let mut session = engine.open(params(engine, text, temperature, max_tokens).await).await.unwrap();
    let (mut tokens, mut accepted, mut round) = (Vec::<TokenId>::new(), 0, 0);
    loop {
        let length = [0, 3, 9, 1, 17][round % 5];
        let mut draft: Vec<TokenId> = truth[tokens.len()..].iter().copied().take(length).collect();
        if round % 3 == 1 && draft.len() > 1 {
            let middle = draft.len() / 2;
            draft[middle] ^= 1;
        }
        round += 1;
        let verified = session.verify(draft).await.unwrap();
        accepted += verified.accepted;
        tokens.extend(verified.committed.iter().map(|committed| committed.token));
        if verified.finish_reason.is_some() || tokens.len() >= truth.len() {
            return (tokens, accepted);
        }
    }
}

const PROMPTS: [&str; 4] = [
    "The capital of France is",
    "fn main() { let numbers = vec![1, 2, 3];",
    "Once upon a time, in a village by the sea,",
    "A recipe for bread: 1. Mix flour and water. 2.",
];

#[tokio::test(flavor = "multi_thread")]
async fn verification_matches_plain_decoding() {
    let engine = load(config());
    for temperature in [0.0, 0.8] {
        for prompt in PROMPTS {
            let truth = decode(&engine, prompt, temperature, 48).await;
            let (tokens, accepted) = decode_with_drafts(&engine, prompt, temperature, &truth).await;
            assert_eq!(tokens, truth, "{prompt} at {temperature}");
            assert!(accepted > 10, "correct drafts are accepted: {accepted}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_is_verified_in_one_pass() {
    let engine = load(config());
    for temperature in [0.0, 0.8] {
        let truth = decode(&engine, PROMPTS[2], temperature, 40).await;
        let mut session = engine.open(params(&engine, PROMPTS[2], temperature, 40).await).await.unwrap();
        let mut tokens: Vec<TokenId> = Vec::new();
        let passes = engine.stats().forward_passes();
        for (round, right) in [2, 0, 1, 2, 1].into_iter().enumerate() {
            let next: Vec<TokenId> = truth[tokens.len()..].iter().copied().take(4).collect();
            // Three paths that diverge at their third token. The correct path changes.
            let path = |index: usize| {
                let mut path = next.clone();
                if index != right {
                    path[2] = path[2] % 100 + 200 + index as u32;
                }
                path
            };
            let verified = session.verify(Draft::from_paths((0..3).map(path))).await.unwrap();
            assert_eq!(verified.accepted, 4, "round {round}");
            tokens.extend(verified.committed.iter().map(|committed| committed.token));
            // A chain after a tree.
            let next: Vec<TokenId> = truth[tokens.len()..].iter().copied().take(2).collect();
            let verified = session.verify(next).await.unwrap();
            tokens.extend(verified.committed.iter().map(|committed| committed.token));
        }
        assert_eq!(tokens, truth);
        assert_eq!(engine.stats().forward_passes() - passes, 10, "one pass per verification");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_without_free_slots_is_cut_to_its_first_path() {
    let engine = load(EngineConfig { slots: 1, ..config() });
    let truth = decode(&engine, PROMPTS[0], 0.0, 20).await;
    let mut session = engine.open(params(&engine, PROMPTS[0], 0.0, 20).await).await.unwrap();
    let draft = Draft::from_paths([truth[..3].to_vec(), vec![truth[0], 99]]);
    let verified = session.verify(draft).await.unwrap();
    assert_eq!(verified.accepted, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_drafts_are_cut() {
    let engine = load(config());
    let truth = decode(&engine, PROMPTS[0], 0.0, 12).await;
    let mut session = engine.open(params(&engine, PROMPTS[0], 0.0, 480).await).await.unwrap();
    let first = session.verify(vec![7; 600]).await.unwrap();
    assert_eq!(first.committed[0].token, truth[0]);
    let mut draft = truth[1..3].to_vec();
    draft.push(u32::MAX);
    let second = session.verify(draft).await.unwrap();
    assert_eq!(second.accepted, 2);
    let many = Draft::from_paths((0..200).map(|n| vec![truth[4], n, n, n, n]));
    let third = session.verify(many).await.unwrap();
    assert!(third.accepted >= 1);
    let unknown = session.propose(vec![u32::MAX], 3, 0.0).await;
    assert!(matches!(unknown, Err(SessionError::UnknownToken(u32::MAX))), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_resumes_from_given_output() {
    let engine = load(config());
    let spec = SamplingSpec {
        temperature: 0.8,
        seed: 3,
        frequency_penalty: 0.9,
        presence_penalty: 0.3,
        ..SamplingSpec::default()
    };
    let sampling = Sampling::new(spec).unwrap();
    let whole = SessionParams { sampling, ..params(&engine, PROMPTS[1], 0.8, 30).await };
    let truth = generate(&engine, whole.clone()).await;
    for known in [1, 7, 29] {
        let resumed = SessionParams { output: truth[..known].to_vec(), ..whole.clone() };
        assert_eq!(generate(&engine, resumed).await, truth[known..], "after {known}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_match_generation() {
    let engine = load(config());
    let truth = decode(&engine, PROMPTS[2], 0.0, 80).await;
    let mut session = engine.open(params(&engine, PROMPTS[2], 0.0, 90).await).await.unwrap();
    let scored = session.score(truth.clone()).await.unwrap();
    assert_eq!(scored.len(), truth.len());
    for (one, token) in scored.iter().zip(&truth) {
        assert_eq!((one.token, one.rank, one.best), (*token, 0, *token));
        assert!(one.logprob <= 0.0 && (one.logprob - one.best_logprob).abs() < 1e-6);
    }
    assert!(matches!(session.score(truth.clone()).await, Err(SessionError::Finished)));
    let mut session = engine.open(params(&engine, PROMPTS[2], 0.0, 90).await).await.unwrap();
    let odd = session.score(vec![truth[0], 4242, truth[2]]).await.unwrap();
    assert!(odd[1].rank > 0 && odd[1].logprob < odd[1].best_logprob);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sequences_match_single_sequences() {
    let engine = load(config());
    let mut truths = Vec::new();
    for prompt in PROMPTS {
        truths.push(decode(&engine, prompt, 0.8, 40).await);
    }
    let tasks = PROMPTS.iter().zip(&truths).enumerate().map(|(index, (prompt, truth))| {
        let (engine, truth) = (engine.clone(), truth.clone());
        tokio::spawn(async move {
            if index % 2 == 0 {
                decode(&engine, prompt, 0.8, 40).await
            } else {
                decode_with_drafts(&engine, prompt, 0.8, &truth).await.0
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for (task, truth) in tasks.into_iter().zip(truths) {
        assert_eq!(task.await.unwrap(), truth);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tied_positions_are_decided_again_without_changing_the_output() {
    let engine = load(config());
    let truth = decode(&engine, PROMPTS[2], 0.0, 48).await;
    // This threshold is far above the real difference. Many positions are therefore decided twice.
    let suspicious = load(EngineConfig { tie_threshold: Some(0.5), ..config() });
    let (tokens, _) = decode_with_drafts(&suspicious, PROMPTS[2], 0.0, &truth).await;
    assert_eq!(tokens, truth);
    assert!(suspicious.stats().tied_positions() > 0);
    assert_eq!(engine.stats().tied_positions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn drafter_of_the_same_model_is_always_accepted() {
    let engine = load(config());
    let drafter = load(config());
    let truth = decode(&engine, PROMPTS[2], 0.8, 40).await;
    let session_params = SessionParams { prefill: false, ..params(&drafter, PROMPTS[2], 0.8, 40).await };
    let mut session = drafter.open(session_params).await.unwrap();
    // The drafter continues, rolls back, and continues at another position.
    for known in [0, 5, 9, 3, 20, 19] {
        let proposals = session.propose(truth[..known].to_vec(), 6, 0.0).await.unwrap();
        let tokens: Vec<TokenId> = proposals.iter().map(|proposal| proposal.token).collect();
        assert_eq!(tokens, truth[known..known + 6], "after {known}");
        assert!(proposals.iter().all(|proposal| (0.0..=1.0).contains(&proposal.probability)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reused_prefix_does_not_change_the_output() {
    let engine = load(config());
    let long = "Rust is a language whose compiler checks who owns what. ".repeat(6);
    let first = decode(&engine, &long, 0.0, 16).await;
    let session = engine.open(params(&engine, &long, 0.0, 16).await).await.unwrap();
    assert!(session.reused_tokens() > 40, "{}", session.reused_tokens());
    drop(session);
    assert_eq!(decode(&engine, &long, 0.0, 16).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_sessions_free_slots_and_full_queue_rejects() {
    let engine = load(EngineConfig { slots: 1, max_queue: 1, ..config() });
    let mut busy = engine.open(params(&engine, PROMPTS[0], 0.0, 400).await).await.unwrap();
    let steps = busy.decode(400).unwrap();
    // The queue holds `max_queue` requests, and one for each slot.
    let wait = || {
        let engine = engine.clone();
        tokio::spawn(async move { engine.open(params(&engine, PROMPTS[1], 0.0, 4).await).await.map(drop) })
    };
    let waiting = [wait(), wait()];
    while engine.stats().queued_requests() < waiting.len() {
        tokio::task::yield_now().await;
    }
    let refused = engine.open(params(&engine, PROMPTS[2], 0.0, 4).await).await.map(drop);
    assert!(matches!(refused, Err(SessionError::Overloaded { .. })), "{refused:?}");
    drop(steps);
    drop(busy);
    for request in waiting {
        request.await.unwrap().unwrap();
    }
    while engine.stats().active_sequences() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(engine.stats().queued_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_request_is_rejected_before_any_pass() {
    let engine = load(config());
    let passes = engine.stats().forward_passes();
    let long = SessionParams { prompt: vec![5; 500], ..params(&engine, "x", 0.0, 20).await };
    assert!(matches!(engine.open(long).await.err(), Some(SessionError::TooLong { context: 512, .. })));
    let odd = SessionParams { prompt: vec![u32::MAX], ..params(&engine, "x", 0.0, 20).await };
    assert!(matches!(engine.open(odd).await.err(), Some(SessionError::UnknownToken(u32::MAX))));
    assert_eq!(engine.stats().forward_passes(), passes);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_schema_holds_with_wrong_drafts() {
    let engine = load(config());
    let schema = serde_json::json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"], "additionalProperties": false
    });
    let grammar = tightwad_engine::TopLevelGrammar::from_json_schema(schema);
    let constraint = engine.weights().constraint(grammar).unwrap();
    let session_params = SessionParams {
        constraint: Some(constraint.into()),
        ..params(&engine, "A person as JSON: ", 0.8, 100).await
    };
    let mut session = engine.open(session_params.clone()).await.unwrap();
    let mut plain = Vec::new();
    let mut steps = session.decode(100).unwrap();
    let mut finish = None;
    while let Some(step) = steps.recv().await {
        let step = step.unwrap();
        plain.extend(step.committed.iter().map(|committed| committed.token));
        finish = step.finish_reason;
    }
    assert_eq!(finish, Some(FinishReason::Stop));
    let mut drafting = engine.open(session_params).await.unwrap();
    let mut tokens = Vec::new();
    loop {
        let mut draft: Vec<TokenId> = plain[tokens.len()..].iter().copied().take(4).collect();
        draft.push(9);
        let verified = drafting.verify(draft).await.unwrap();
        tokens.extend(verified.committed.iter().map(|committed| committed.token));
        if verified.finish_reason.is_some() {
            break;
        }
    }
    assert_eq!(tokens, plain);
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| engine.weights().token_bytes(*token)).collect();
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert!(value["age"].is_number() && value["name"].is_string());
}
