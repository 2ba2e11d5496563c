//! Models of many architectures on reused slots: the output equals that of a new engine, and the state of recurrent
//! layers goes back to an earlier token without a new evaluation of the prompt.
use std::collections::BTreeSet;

use tightwad_core::{Draft, TokenId};
use tightwad_engine::{Engine, EngineConfig, Session};
use tightwad_zoo::Kind;

use crate::support::{generate as generate_with, load_zoo, params_for};

/// Tests share the cores, so an engine has one thread.
fn config(slots: u32) -> EngineConfig {
    EngineConfig { context: 1024, slots, threads: 1, ..EngineConfig::default() }
}

/// Architectures whose state does not return as that of [`Kind::Llama`] does: recurrent layers, sliding windows and
/// compressed caches.
fn special_architectures() -> impl Iterator<Item = Kind> {
    Kind::RECURRENT.into_iter().chain([Kind::Gemma3, Kind::DeepSeek2])
}

/// Pseudo-random tokens that depend only on the arguments.
fn pseudo_random_tokens(seed: u32, count: u32) -> Vec<TokenId> {
    (0..count).map(|place| 300 + (seed * 7919 + place * 104_729) % 3_000).collect()
}

async fn generate(engine: &Engine, prompt: &[TokenId], max_tokens: u32) -> Vec<TokenId> {
    generate_with(engine, params_for(prompt.to_vec(), 0.8, max_tokens)).await
}

/// A new engine with the same weights.
fn new_engine(engine: &Engine) -> Engine {
    Engine::start(engine.weights().clone(), config(1)).unwrap()
}

/// The output of a new engine with the same weights.
async fn generate_on_new_engine(engine: &Engine, prompt: &[TokenId], max_tokens: u32) -> Vec<TokenId> {
    generate(&new_engine(engine), prompt, max_tokens).await
}

/// The number of first tokens of `prompt` that `engine` need not evaluate.
async fn reused_tokens(engine: &Engine, prompt: &[TokenId]) -> usize {
    engine.open(params_for(prompt.to_vec(), 0.8, 8)).await.unwrap().reused_tokens() as usize
}

/// Verifies drafts of `draft` until the session ends. `draft` takes the number of committed tokens.
async fn verify_all(session: &mut Session, mut draft: impl FnMut(usize) -> Draft) -> Vec<TokenId> {
    let mut tokens: Vec<TokenId> = Vec::new();
    loop {
        let step = session.verify(draft(tokens.len())).await.unwrap();
        tokens.extend(step.committed.iter().map(|committed| committed.token));
        if step.finish_reason.is_some() {
            return tokens;
        }
    }
}

/// The next `right` tokens of `truth` after `done` tokens, then `wrong` other tokens.
fn draft_of(truth: &[TokenId], done: usize, right: usize, wrong: usize) -> Vec<TokenId> {
    let mut draft: Vec<TokenId> = truth[done.min(truth.len())..].iter().copied().take(right).collect();
    draft.extend((0..wrong as TokenId).map(|place| 5 + place));
    draft
}

#[tokio::test(flavor = "multi_thread")]
async fn conversation_continues_from_its_cache_over_three_turns() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_zoo(kind, config(1));
        let mut conversation = pseudo_random_tokens(1, 60);
        let mut previous = 0;
        for turn in 0..3 {
            let reused = reused_tokens(&engine, &conversation).await;
            // The last token of an answer may be pending.
            assert!(reused + 1 >= previous, "{kind:?}, turn {turn}: {reused} of {previous} tokens reused");
            let output = generate(&engine, &conversation, 20).await;
            let truth = generate_on_new_engine(&engine, &conversation, 20).await;
            assert_eq!(output, truth, "{kind:?}, turn {turn}");
            conversation.extend(output);
            previous = conversation.len();
            conversation.extend(pseudo_random_tokens(10 + turn, 15));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_slot_keeps_conversations_apart() {
    for kind in special_architectures() {
        let engine = load_zoo(kind, config(1));
        // Both begin alike, like conversations with the same system prompt.
        let conversations =
            [7, 8].map(|seed| [pseudo_random_tokens(1, 280), pseudo_random_tokens(seed, 20)].concat());
        let truths = [
            generate_on_new_engine(&engine, &conversations[0], 8).await,
            generate_on_new_engine(&engine, &conversations[1], 8).await,
        ];
        for (request, turn) in [0, 1, 0, 0, 1].into_iter().enumerate() {
            let reused = reused_tokens(&engine, &conversations[turn]).await;
            assert!(request == 0 || reused >= 200, "{kind:?}: {reused} tokens reused");
            assert_eq!(generate(&engine, &conversations[turn], 8).await, truths[turn], "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_common_beginning_is_copied_to_another_slot() {
    for kind in special_architectures() {
        let engine = load_zoo(kind, config(2));
        let conversations = [1, 2].map(|seed| {
            // The own part is longer than the common one, so the second conversation takes a slot of its own.
            [pseudo_random_tokens(9, 270), pseudo_random_tokens(seed, 280)].concat()
        });
        for conversation in &conversations {
            let truth = generate_on_new_engine(&engine, conversation, 8).await;
            assert_eq!(generate(&engine, conversation, 8).await, truth, "{kind:?}");
        }
        for conversation in &conversations {
            let reused = reused_tokens(&engine, conversation).await;
            assert_eq!(reused, conversation.len() - 1, "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_stream_does_not_affect_the_next_request() {
    for kind in special_architectures() {
        let engine = load_zoo(kind, config(1));
        let prompt = pseudo_random_tokens(3, 90);
        let truth = generate_on_new_engine(&engine, &prompt, 16).await;
        for steps in [0, 1, 7] {
            let mut session = engine.open(params_for(prompt.clone(), 0.8, 200)).await.unwrap();
            let mut stream = session.decode(200).unwrap();
            for _ in 0..steps {
                stream.recv().await.unwrap().unwrap();
            }
            drop((stream, session));
            let reused = reused_tokens(&engine, &prompt).await;
            assert!(reused >= prompt.len() - 17, "{kind:?}: {reused} tokens reused");
            assert_eq!(generate(&engine, &prompt, 16).await, truth, "{kind:?} after {steps} steps");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_drafts_do_not_change_the_output() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_zoo(kind, config(1));
        let prompt = pseudo_random_tokens(4, 40);
        // More rejected tokens than snapshots, and rejections in the middle, at once, and never.
        for (temperature, drafts) in [(0.0, [(2, 3), (6, 0)]), (0.8, [(0, 20), (5, 12)])] {
            let params = params_for(prompt.clone(), temperature, 24);
            let truth = generate_with(&new_engine(&engine), params.clone()).await;
            for (right, wrong) in drafts {
                let mut session = engine.open(params.clone()).await.unwrap();
                let draft = |done| Draft::from(draft_of(&truth, done, right, wrong));
                let tokens = verify_all(&mut session, draft).await;
                assert_eq!(tokens, truth, "{kind:?} at {temperature}: {right} right, {wrong} wrong");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_do_not_change_the_output() {
    for kind in special_architectures() {
        let engine = load_zoo(kind, config(3));
        let prompt = pseudo_random_tokens(5, 40);
        let truth = generate_on_new_engine(&engine, &prompt, 24).await;
        let mut session = engine.open(params_for(prompt, 0.8, 24)).await.unwrap();
        let tree = |done| {
            Draft::from_paths([
                draft_of(&truth, done, 1, 3),
                draft_of(&truth, done, 3, 1),
                draft_of(&truth, done, 0, 2),
            ])
        };
        assert_eq!(verify_all(&mut session, tree).await, truth, "{kind:?}");
    }
}

/// A stop string ends a request after a rejection: the session closes while its state is rolled back. The next request
/// continues with other tokens, on the same slot and on a copy of it.
#[tokio::test(flavor = "multi_thread")]
async fn session_that_closes_after_a_rejection_leaves_a_right_state() {
    for kind in special_architectures() {
        let engine = load_zoo(kind, config(2));
        let prompt = pseudo_random_tokens(6, 80);
        let truth = generate_on_new_engine(&engine, &prompt, 16).await;
        for (right, wrong, kept) in [(2, 3, 3), (0, 4, 1), (4, 0, 2), (1, 12, 2)] {
            let mut session = engine.open(params_for(prompt.clone(), 0.8, 16)).await.unwrap();
            session.verify(draft_of(&truth, 0, right, wrong)).await.unwrap();
            drop(session);
            let next = [prompt.as_slice(), &truth[..kept], &pseudo_random_tokens(60, 5)].concat();
            let expected = generate_on_new_engine(&engine, &next, 8).await;
            let both = tokio::join!(generate(&engine, &next, 8), generate(&engine, &next, 8));
            assert_eq!(both, (expected.clone(), expected), "{kind:?}: {right}, {wrong}, {kept}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sequences_match_new_engines() {
    for kind in Kind::ARCHITECTURES {
        let engine = load_zoo(kind, config(4));
        let mut tasks = Vec::new();
        for seed in 0..5_u32 {
            let prompt = pseudo_random_tokens(20 + seed, 20 + 13 * seed);
            let truth = generate_on_new_engine(&engine, &prompt, 16).await;
            let (engine, expected) = (engine.clone(), truth.clone());
            // Some decode, the others verify drafts of different lengths.
            let task = tokio::spawn(async move {
                if seed % 3 == 0 {
                    return generate(&engine, &prompt, 16).await;
                }
                let mut session = engine.open(params_for(prompt, 0.8, 16)).await.unwrap();
                let draft = |done| Draft::from(draft_of(&truth, done, done % 4, seed as usize));
                verify_all(&mut session, draft).await
            });
            tasks.push((seed, expected, task));
        }
        for (seed, expected, task) in tasks {
            assert_eq!(task.await.unwrap(), expected, "{kind:?}, sequence {seed}");
        }
    }
}

/// A drafter that returns to earlier tokens proposes the same tokens as a new one.
#[tokio::test(flavor = "multi_thread")]
async fn proposals_do_not_depend_on_rejected_proposals() {
    for kind in special_architectures() {
        let engine = load_zoo(kind, config(2));
        let prompt = pseudo_random_tokens(7, 50);
        let mut drafter = engine.open(params_for(prompt.clone(), 0.8, 100)).await.unwrap();
        let mut output: Vec<TokenId> = Vec::new();
        let mut lengths = BTreeSet::new();
        for round in 0..6_u32 {
            let proposals = drafter.propose(output.clone(), 5, 0.0).await.unwrap();
            let mut fresh = engine.open(params_for(prompt.clone(), 0.8, 100)).await.unwrap();
            assert_eq!(fresh.propose(output.clone(), 5, 0.0).await.unwrap(), proposals, "{kind:?}, {round}");
            lengths.insert(proposals.len());
            // The target accepts some of the proposals, then chooses another token.
            let accepted = proposals.iter().map(|proposal| proposal.token).take(round as usize % 4);
            output.extend(accepted);
            output.push(700 + round);
        }
        assert!(lengths.contains(&5), "{kind:?}: {lengths:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_do_not_depend_on_the_cache() {
    for kind in special_architectures() {
        let engine = load_zoo(kind, config(1));
        let (prompt, text) = (pseudo_random_tokens(8, 50), pseudo_random_tokens(9, 70));
        let mut fresh = new_engine(&engine).open(params_for(prompt.clone(), 0.8, 100)).await.unwrap();
        let truth = fresh.score(text.clone()).await.unwrap();
        generate(&engine, &[prompt.as_slice(), &text[..10]].concat(), 8).await;
        for _ in 0..2 {
            let mut session = engine.open(params_for(prompt.clone(), 0.8, 100)).await.unwrap();
            assert_eq!(session.score(text.clone()).await.unwrap(), truth, "{kind:?}");
        }
    }
}

/// Converters round the size of a vocabulary up with unused tokens. Models of one family then differ in nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn drafter_with_a_padded_vocabulary_drafts_for_the_plain_one() {
    let (target, drafter) = (load_zoo(Kind::Llama, config(1)), load_zoo(Kind::PaddedVocabulary, config(1)));
    assert!(drafter.weights().vocabulary_size() > target.weights().vocabulary_size());
    assert_eq!(drafter.weights().vocabulary_digest(), target.weights().vocabulary_digest());
    let prompt = pseudo_random_tokens(11, 40);
    let truth = generate_on_new_engine(&target, &prompt, 16).await;
    let mut proposing = drafter.open(params_for(prompt.clone(), 0.8, 100)).await.unwrap();
    let mut session = target.open(params_for(prompt, 0.8, 16)).await.unwrap();
    let mut tokens: Vec<TokenId> = Vec::new();
    while tokens.len() < truth.len() {
        let proposals = proposing.propose(tokens.clone(), 4, 0.0).await.unwrap();
        let draft: Vec<TokenId> = proposals.iter().map(|proposal| proposal.token).collect();
        let step = session.verify(draft).await.unwrap();
        tokens.extend(step.committed.iter().map(|committed| committed.token));
    }
    assert_eq!(tokens, truth);
}
