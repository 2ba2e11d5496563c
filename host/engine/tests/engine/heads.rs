//! Draft heads: they propose for the model's own sessions, and never change the output.
use tightwad_core::TokenId;
use tightwad_engine::{Engine, EngineConfig, SessionParams};
use tightwad_zoo::{Kind, TokenCycle};

use crate::support::{generate, load_zoo, params_for};

fn load(kind: Kind, slots: u32) -> Engine {
    let config = EngineConfig { context: 1024, slots, threads: 1, ..EngineConfig::default() };
    let engine = load_zoo(kind, config);
    engine.enable_heads();
    engine
}

/// The output of a session that verifies up to `draft_tokens` proposals of the heads at a time, with the numbers of
/// proposed and accepted tokens.
async fn draft_with_heads(
    engine: &Engine,
    params: SessionParams,
    draft_tokens: u32,
) -> (Vec<TokenId>, u32, u32) {
    let prompt = params.prompt.clone().into();
    let mut session = engine.open(params).await.unwrap();
    let (mut tokens, mut proposed, mut accepted) = (Vec::new(), 0, 0);
    loop {
        let proposals = engine.propose_with_heads(Clone::clone(&prompt), tokens.clone(), draft_tokens, 0.0);
        let draft: Vec<TokenId> = proposals.await.unwrap().iter().map(|proposal| proposal.token).collect();
        let step = session.verify(draft.clone()).await.unwrap();
        proposed += draft.len() as u32;
        accepted += step.accepted;
        tokens.extend(step.committed.iter().map(|committed| committed.token));
        if step.finish_reason.is_some() {
            return (tokens, proposed, accepted);
        }
    }
}

fn prompt(seed: u32) -> Vec<TokenId> {
    (0..40).map(|place| 300 + (seed * 7919 + place * 104_729) % 3_000).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_of_heads_do_not_change_the_output() {
    for kind in Kind::WITH_HEADS {
        let engine = load(kind, 4);
        for temperature in [0.0, 0.8] {
            let params = |seed| params_for(prompt(seed), temperature, 32);
            let truths = [generate(&engine, params(1)).await, generate(&engine, params(2)).await];
            let both = tokio::join!(
                draft_with_heads(&engine, params(1), 3),
                draft_with_heads(&engine, params(2), 5)
            );
            assert!(both.0.1 > 32 && both.1.1 > 32, "{kind:?}: the heads propose");
            assert_eq!([both.0.0, both.1.0], truths, "{kind:?} at {temperature}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acceptance_is_as_constructed() {
    for (damage_percent, draft_tokens) in [(0, 1), (0, 4), (30, 1), (30, 3), (100, 2)] {
        let engine = load(Kind::Constructed { damage_percent }, 1);
        let cycle = TokenCycle::new(engine.weights().vocabulary_size(), damage_percent);
        let prompt = prompt(3);
        let last = prompt[prompt.len() - 1];
        let mut truth = vec![cycle.next(last)];
        while truth.len() < 200 {
            truth.push(cycle.next(truth[truth.len() - 1]));
        }
        let params = params_for(prompt, 0.0, 200);
        let (tokens, proposed, accepted) = draft_with_heads(&engine, params, draft_tokens).await;
        assert_eq!(tokens, truth);
        let expected = expected_drafts(&cycle, last, &truth, draft_tokens as usize);
        assert_eq!((proposed, accepted), expected, "{damage_percent} % damage, {draft_tokens} tokens");
    }
}

/// The numbers of proposed and accepted tokens. Each round commits the drafts before the first wrong one, and one more
/// token of `truth`.
fn expected_drafts(
    cycle: &TokenCycle,
    last_of_prompt: TokenId,
    truth: &[TokenId],
    draft_tokens: usize,
) -> (u32, u32) {
    let (mut proposed, mut accepted, mut done) = (0, 0, 0);
    let text: Vec<TokenId> = [&[last_of_prompt], truth].concat();
    while done < truth.len() {
        let length = (truth.len() - done - 1).min(draft_tokens);
        let right = text[done..done + length].iter().zip(&truth[done..]);
        let right = right.take_while(|(before, token)| cycle.draft(**before) == **token).count();
        (proposed, accepted) = (proposed + length as u32, accepted + right as u32);
        done += right + 1;
    }
    (proposed, accepted)
}

/// Sessions that share a slot, one after the other: the heads' cache follows the slot.
#[tokio::test(flavor = "multi_thread")]
async fn heads_follow_a_reused_slot() {
    let engine = load(Kind::Constructed { damage_percent: 0 }, 1);
    let mut conversation = prompt(4);
    for turn in 0..3 {
        let params = params_for(conversation.clone(), 0.0, 40);
        let (tokens, proposed, accepted) = draft_with_heads(&engine, params, 4).await;
        assert_eq!(proposed, accepted, "turn {turn}");
        conversation.extend(tokens);
        conversation.extend(prompt(5 + turn));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_a_session_propose_nothing() {
    let engine = load(Kind::Constructed { damage_percent: 0 }, 2);
    let propose = || engine.propose_with_heads(prompt(1).into(), Vec::new(), 4, 0.0);
    assert!(propose().await.unwrap().is_empty());
    let session = engine.open(params_for(prompt(1), 0.0, 40)).await.unwrap();
    assert_eq!(propose().await.unwrap().len(), 4);
    assert_eq!(propose().await.unwrap().len(), 4, "a proposal can be repeated");
    drop(session);
    assert!(propose().await.unwrap().is_empty());
    let plain = load(Kind::Llama, 1);
    assert!(plain.propose_with_heads(prompt(1).into(), Vec::new(), 4, 0.0).await.unwrap().is_empty());
}

/// A drafter that looks on while its target decodes proposes as if the target had stopped there.
#[tokio::test(flavor = "multi_thread")]
async fn heads_propose_after_earlier_tokens_of_a_decode() {
    let engine = load(Kind::Constructed { damage_percent: 0 }, 1);
    let cycle = TokenCycle::new(engine.weights().vocabulary_size(), 0);
    let truth = generate(&engine, params_for(prompt(6), 0.0, 60)).await;
    let mut session = engine.open(params_for(prompt(6), 0.0, 60)).await.unwrap();
    let mut steps = session.decode(60).unwrap();
    let mut output = Vec::new();
    while let Some(step) = steps.recv().await {
        output.extend(step.unwrap().committed.iter().map(|committed| committed.token));
        let proposals = engine.propose_with_heads(prompt(6).into(), output.clone(), 3, 0.0).await.unwrap();
        let mut last = output[output.len() - 1];
        for proposal in proposals {
            last = cycle.next(last);
            assert_eq!(proposal.token, last, "after {} tokens", output.len());
        }
    }
    assert_eq!(output, truth);
}
