//! Models of many architectures on reused slots: the output equals that of a new engine. The state of
//! recurrent layers cannot be cut. If a prompt does not begin with all of its tokens, the engine evaluates
//! the state again.
use tightwad_core::TokenId;
use tightwad_engine::{Engine, EngineConfig};
use tightwad_zoo::Kind;

use crate::support::{generate as generate_with, load_from, params_for, zoo_model};

fn config(slots: u32) -> EngineConfig {
    EngineConfig { context: 512, slots, ..EngineConfig::default() }
}

/// Pseudo-random tokens that depend only on the arguments.
fn pseudo_random_tokens(seed: u32, count: u32) -> Vec<TokenId> {
    (0..count).map(|place| 300 + (seed * 7919 + place * 104_729) % 40_000).collect()
}

async fn generate(engine: &Engine, prompt: &[TokenId], max_tokens: u32) -> Vec<TokenId> {
    generate_with(engine, params_for(prompt.to_vec(), 0.8, max_tokens)).await
}

/// The output of a new engine with the same weights.
async fn generate_on_new_engine(engine: &Engine, prompt: &[TokenId], max_tokens: u32) -> Vec<TokenId> {
    let new_engine = Engine::start(engine.weights().clone(), config(1)).unwrap();
    generate(&new_engine, prompt, max_tokens).await
}

#[tokio::test(flavor = "multi_thread")]
async fn reused_slot_matches_new_engine_over_three_turns() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_from(&zoo_model(kind), config(1));
        let mut conversation = pseudo_random_tokens(1, 60);
        for turn in 0..3 {
            let output = generate(&engine, &conversation, 20).await;
            assert_eq!(
                output,
                generate_on_new_engine(&engine, &conversation, 20).await,
                "{kind:?}, turn {turn}"
            );
            conversation.extend(output);
            conversation.extend(pseudo_random_tokens(10 + turn, 15));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_slot_keeps_conversations_apart() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_from(&zoo_model(kind), config(1));
        // Both begin alike, like conversations with the same system prompt.
        let conversations =
            [7, 8].map(|seed| [pseudo_random_tokens(1, 50), pseudo_random_tokens(seed, 20)].concat());
        let truths = [
            generate_on_new_engine(&engine, &conversations[0], 16).await,
            generate_on_new_engine(&engine, &conversations[1], 16).await,
        ];
        for turn in [0, 1, 0, 0, 1] {
            assert_eq!(generate(&engine, &conversations[turn], 16).await, truths[turn], "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_stream_does_not_affect_the_next_request() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_from(&zoo_model(kind), config(1));
        let prompt = pseudo_random_tokens(3, 90);
        let truth = generate_on_new_engine(&engine, &prompt, 16).await;
        for steps in [0, 1, 7] {
            let mut session = engine.open(params_for(prompt.clone(), 0.8, 200)).await.unwrap();
            let mut stream = session.decode(200).unwrap();
            for _ in 0..steps {
                stream.recv().await.unwrap().unwrap();
            }
            drop((stream, session));
            assert_eq!(generate(&engine, &prompt, 16).await, truth, "{kind:?} after {steps} steps");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_drafts_do_not_change_the_output() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_from(&zoo_model(kind), config(1));
        let prompt = pseudo_random_tokens(4, 40);
        let truth = generate_on_new_engine(&engine, &prompt, 24).await;
        let mut session = engine.open(params_for(prompt, 0.8, 24)).await.unwrap();
        let mut tokens: Vec<TokenId> = Vec::new();
        while tokens.len() < truth.len() {
            // Two correct tokens, then wrong ones.
            let mut draft: Vec<TokenId> = truth[tokens.len()..].iter().copied().take(2).collect();
            draft.extend([5, 6, 7]);
            let verified = session.verify(draft).await.unwrap();
            tokens.extend(verified.committed.iter().map(|committed| committed.token));
            if verified.finish_reason.is_some() {
                break;
            }
        }
        assert_eq!(tokens, truth, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sequences_match_new_engines() {
    for kind in Kind::RECURRENT {
        let engine = load_from(&zoo_model(kind), config(3));
        let mut tasks = Vec::new();
        for seed in 0..6 {
            let (engine, prompt) = (engine.clone(), pseudo_random_tokens(20 + seed, 20 + 13 * seed));
            tasks.push((prompt.clone(), tokio::spawn(async move { generate(&engine, &prompt, 20).await })));
        }
        for (prompt, task) in tasks {
            assert_eq!(task.await.unwrap(), generate_on_new_engine(&engine, &prompt, 20).await, "{kind:?}");
        }
    }
}
