//! Models of many architectures behind slots that are used again: the answers are those of a fresh host. The state
//! of recurrent layers cannot be cut, so it is evaluated again where a prompt does not begin with all of it.
use tightwad_core::TokenId;
use tightwad_engine::{Engine, EngineConfig};
use tightwad_zoo::Kind;

use crate::support::{generated, load_from, opened, zoo};

fn config(slots: u32) -> EngineConfig {
    EngineConfig { context: 512, slots, ..EngineConfig::default() }
}

/// Tokens that look random and are always the same.
fn words(seed: u32, count: u32) -> Vec<TokenId> {
    (0..count).map(|place| 300 + (seed * 7919 + place * 104_729) % 40_000).collect()
}

async fn answer(engine: &Engine, prompt: &[TokenId], max_tokens: u32) -> Vec<TokenId> {
    generated(engine, opened(prompt.to_vec(), 0.8, max_tokens)).await
}

/// The answer of an engine of the same weights that did nothing before.
async fn fresh(engine: &Engine, prompt: &[TokenId], max_tokens: u32) -> Vec<TokenId> {
    let fresh = Engine::start(engine.weights().clone(), config(1)).unwrap();
    answer(&fresh, prompt, max_tokens).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_turns_on_one_slot_are_as_on_a_fresh_host() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_from(&zoo(kind), config(1));
        let mut conversation = words(1, 60);
        for turn in 0..3 {
            let answered = answer(&engine, &conversation, 20).await;
            assert_eq!(answered, fresh(&engine, &conversation, 20).await, "{kind:?}, turn {turn}");
            conversation.extend(answered);
            conversation.extend(words(10 + turn, 15));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_conversations_and_a_repeated_question_share_a_slot() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_from(&zoo(kind), config(1));
        // They begin alike, as conversations with one system prompt do.
        let conversations = [7, 8].map(|seed| [words(1, 50), words(seed, 20)].concat());
        let truths =
            [fresh(&engine, &conversations[0], 16).await, fresh(&engine, &conversations[1], 16).await];
        for turn in [0, 1, 0, 0, 1] {
            assert_eq!(answer(&engine, &conversations[turn], 16).await, truths[turn], "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_stream_leaves_nothing_behind() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_from(&zoo(kind), config(1));
        let prompt = words(3, 90);
        let truth = fresh(&engine, &prompt, 16).await;
        for steps in [0, 1, 7] {
            let mut session = engine.open(opened(prompt.clone(), 0.8, 200)).await.unwrap();
            let mut stream = session.decode(200).unwrap();
            for _ in 0..steps {
                stream.recv().await.unwrap().unwrap();
            }
            drop((stream, session));
            assert_eq!(answer(&engine, &prompt, 16).await, truth, "{kind:?} after {steps} steps");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_drafts_are_rolled_back_or_evaluated_again() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_from(&zoo(kind), config(1));
        let prompt = words(4, 40);
        let truth = fresh(&engine, &prompt, 24).await;
        let mut session = engine.open(opened(prompt, 0.8, 24)).await.unwrap();
        let mut tokens: Vec<TokenId> = Vec::new();
        while tokens.len() < truth.len() {
            // Right for two tokens, then wrong.
            let mut draft: Vec<TokenId> = truth[tokens.len()..].iter().copied().take(2).collect();
            draft.extend([5, 6, 7]);
            let verified = session.verify(draft).await.unwrap();
            tokens.extend(verified.committed.iter().map(|committed| committed.token));
            if verified.finish.is_some() {
                break;
            }
        }
        assert_eq!(tokens, truth, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_are_each_as_on_a_fresh_host() {
    for kind in Kind::RECURRENT {
        let engine = load_from(&zoo(kind), config(3));
        let mut tasks = Vec::new();
        for seed in 0..6 {
            let (engine, prompt) = (engine.clone(), words(20 + seed, 20 + 13 * seed));
            tasks.push((prompt.clone(), tokio::spawn(async move { answer(&engine, &prompt, 20).await })));
        }
        for (prompt, task) in tasks {
            assert_eq!(task.await.unwrap(), fresh(&engine, &prompt, 20).await, "{kind:?}");
        }
    }
}
