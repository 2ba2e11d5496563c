use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tightwad_core::{
    Backend, BackendError, Clock, Drafter, DrafterSource, FinishReason, Generator, Prompt, Request,
    ResumePoint, Sampling, SamplingSpec, StepResult, Target, TargetSource, Token, TokenId,
};
use tokio::net::TcpListener;

use crate::client::model::{Node, NodeSpec};
use crate::client::probe::probe;
use crate::protocol::checksum::to_checked_json;
use crate::protocol::facts::{NodeFacts, PROTOCOL_VERSION};
use crate::testing::{FakeModel, FakeNode, Fault};

/// The tokens of a prompt.
fn tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(u32::from).collect()
}

fn request(max_tokens: u32) -> Arc<Request> {
    let spec = SamplingSpec { logprobs: Some(2), ..SamplingSpec::default() };
    let sampling = Sampling::new(spec).unwrap();
    let prompt = Prompt::Text("hello".into());
    Arc::new(Request { prompt, sampling, max_tokens: Some(max_tokens), ..Request::default() })
}

async fn target(backend: &dyn TargetSource) -> Box<dyn Target> {
    backend.open_target(&request(100), None).await.unwrap().session
}

/// A node that lends a model, the model, and a target session on the node.
async fn session() -> (FakeNode, FakeModel, Box<dyn Target>) {
    let model = FakeModel::new();
    let node = FakeNode::new(Arc::new(model.clone())).await;
    let session = target(&node.connect().await).await;
    (node, model, session)
}

/// Verifies `draft`, and clears the times of the result.
async fn verify(target: &mut dyn Target, draft: &[TokenId]) -> StepResult {
    clear_times(target.verify(&draft.to_vec().into()).await.unwrap())
}

fn clear_times(verified: StepResult) -> StepResult {
    StepResult { elapsed: Duration::ZERO, cost: Duration::ZERO, ..verified }
}

async fn decode(target: &mut dyn Target, max: u32) -> Vec<StepResult> {
    target.decode(max).await.unwrap();
    let mut steps = Vec::new();
    while let Some(step) = target.step().await.unwrap() {
        steps.push(clear_times(step));
    }
    steps
}

fn committed_tokens(steps: &[StepResult]) -> Vec<TokenId> {
    steps.iter().flat_map(|step| &step.committed).map(|committed| committed.token).collect()
}

#[tokio::test]
async fn remote_session_answers_like_the_local_model() {
    let (_node, _, mut remote) = session().await;
    let mut local = target(&FakeModel::new()).await;
    let right = FakeModel::continuation(&tokens("hello"), 3);
    let half = [right[0], u32::from(b'?'), right[2]];
    for draft in [&right[..0], &right[1..], &half] {
        let verified = verify(remote.as_mut(), draft).await;
        assert_eq!(verified, verify(local.as_mut(), draft).await, "{draft:?}");
        assert!(verified.committed[0].logprobs.is_some());
    }
    assert_eq!(decode(remote.as_mut(), 5).await, decode(local.as_mut(), 5).await);
    assert_eq!(verify(remote.as_mut(), &right).await, verify(local.as_mut(), &right).await);
    assert_eq!(remote.bytes(right[0]), local.bytes(right[0]));
    // The caller abandons this decode.
    remote.decode(50).await.unwrap();
    let step = clear_times(remote.step().await.unwrap().unwrap());
    local.decode(1).await.unwrap();
    assert_eq!(step, clear_times(local.step().await.unwrap().unwrap()));
    assert_eq!(verify(remote.as_mut(), &[]).await, verify(local.as_mut(), &[]).await);
}

#[tokio::test]
async fn opened_session_has_prompt_and_limits_of_the_model() {
    let node = FakeNode::new(Arc::new(FakeModel::new())).await;
    let opened = node.connect().await.open_target(&request(7), None).await.unwrap();
    assert_eq!((opened.cached_tokens, opened.prepared.max_tokens), (3, 7));
    assert_eq!((&*opened.prepared.prompt, &*opened.prepared.text), (tokens("hello").as_slice(), "hello"));
    let mut session = opened.session;
    let steps = decode(session.as_mut(), 20).await;
    assert_eq!((steps.len(), steps[6].finish_reason), (7, Some(FinishReason::Length)));
}

#[tokio::test]
async fn session_continues_at_a_resume_point() {
    let node = FakeNode::new(Arc::new(FakeModel::new())).await;
    let (prompt, output) = (tokens("hello"), tokens("wor"));
    let resume_point = ResumePoint { prompt: prompt.clone().into(), output: output.clone(), max_tokens: 100 };
    let opened = node.connect().await.open_target(&request(100), Some(&resume_point)).await.unwrap();
    let mut session = opened.session;
    let steps = decode(session.as_mut(), 4).await;
    assert_eq!(committed_tokens(&steps), FakeModel::continuation(&[prompt, output].concat(), 4));
}

#[tokio::test]
async fn accepted_tokens_are_sent_with_the_next_call() {
    let (node, _, mut remote) = session().await;
    assert_eq!(remote.append_unverified(&tokens("ab")).await.unwrap(), 2);
    assert!(node.calls("verify").is_empty());
    let verified = verify(remote.as_mut(), &[]).await;
    assert_eq!(committed_tokens(&[verified]), FakeModel::continuation(&tokens("helloab"), 1));
    assert_eq!(node.calls("verify")[0].body["unverified"], json!(tokens("ab")));
    verify(remote.as_mut(), &[]).await;
    assert_eq!(node.calls("verify")[1].body.get("unverified"), None);
}

#[tokio::test]
async fn call_with_a_lost_reply_is_repeated_and_applied_once() {
    for fault in [Fault::LoseReply, Fault::ChangeReply] {
        let (node, model, mut remote) = session().await;
        let draft = FakeModel::continuation(&tokens("hello"), 2);
        node.inject("verify", fault);
        let verified = verify(remote.as_mut(), &draft).await;
        assert_eq!(committed_tokens(&[verified]), FakeModel::continuation(&tokens("hello"), 3), "{fault:?}");
        assert_eq!((node.calls("verify").len(), model.passes()), (2, 1), "{fault:?}");
        assert_eq!(model.opened.lock().unwrap().len(), 1, "{fault:?}");
        let next = verify(remote.as_mut(), &[]).await;
        assert_eq!(committed_tokens(&[next]), FakeModel::continuation(&tokens("hello"), 4)[3..]);
    }
}

#[tokio::test]
async fn corrupted_call_is_sent_again() {
    let (node, model, mut remote) = session().await;
    node.inject("verify", Fault::ChangeCall);
    let verified = verify(remote.as_mut(), &[]).await;
    assert_eq!(committed_tokens(&[verified]), FakeModel::continuation(&tokens("hello"), 1));
    let calls = node.calls("verify");
    assert_eq!((calls.len(), model.passes()), (2, 1));
    assert_eq!(calls[0].body, calls[1].body);
}

#[tokio::test]
async fn expired_session_is_reopened_from_the_committed_tokens() {
    let (node, model, mut remote) = session().await;
    let first = verify(remote.as_mut(), &FakeModel::continuation(&tokens("hello"), 2)).await;
    node.inject("verify", Fault::ExpireSession);
    node.inject("decode", Fault::ExpireSession);
    let second = verify(remote.as_mut(), &[]).await;
    let third = decode(remote.as_mut(), 2).await;
    let output_tokens = [committed_tokens(&[first, second]), committed_tokens(&third)].concat();
    assert_eq!(output_tokens, FakeModel::continuation(&tokens("hello"), 6));
    let opened = model.opened.lock().unwrap().clone();
    let output = |count| FakeModel::continuation(&tokens("hello"), count);
    let expected = [output(0), output(3), output(4)].map(|output| (tokens("hello"), output));
    assert_eq!(opened, expected);
}

#[tokio::test]
async fn broken_decode_continues_after_the_last_token() {
    for fault in [Fault::LoseReply, Fault::CutReply] {
        let (node, model, mut remote) = session().await;
        node.inject("decode", fault);
        let steps = decode(remote.as_mut(), 6).await;
        assert_eq!(committed_tokens(&steps), FakeModel::continuation(&tokens("hello"), 6), "{fault:?}");
        let received = usize::from(fault == Fault::CutReply);
        let opened = model.opened.lock().unwrap().clone();
        let last = (tokens("hello"), FakeModel::continuation(&tokens("hello"), received));
        assert_eq!(opened, [(tokens("hello"), Vec::new()), last], "{fault:?}");
    }
}

#[tokio::test]
async fn dropped_session_is_closed_on_the_node() {
    let (node, _, remote) = session().await;
    assert_eq!(node.sessions(), 1);
    drop(remote);
    let closed = async {
        while node.sessions() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}

#[tokio::test]
async fn node_with_other_weights_is_refused() {
    let model = FakeModel::new();
    let node = FakeNode::new(Arc::new(model.clone())).await;
    let spec = NodeSpec { wait_timeout: Duration::ZERO, ..node.spec() };
    let backend = Node::connect(&spec).await.unwrap();
    *model.weights.lock().unwrap() = "ef".repeat(32);
    let error = backend.open_target(&request(100), None).await.err().unwrap();
    assert!(error.to_string().contains("serves other weights as 'model'"), "{error}");
}

#[tokio::test]
async fn wrong_token_is_a_clear_error() {
    let token = Token::new("right").unwrap();
    let model = Arc::new(FakeModel::new());
    let node = FakeNode::with_models([("model", model)], Some(token.clone()), Clock::default()).await;
    let wrong = Some(Token::new("wrong").unwrap());
    for (wrong, expected) in [
        (None, "it needs a token: set `token` to the one that it was started with, or run `tightwad pair`"),
        (wrong, "it does not accept this token: set `token` to the one that it was started with"),
    ] {
        let error = Node::connect(&NodeSpec { token: wrong, ..node.spec() }).await.err().unwrap().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    let backend = Node::connect(&NodeSpec { token: Some(token), ..node.spec() }).await.unwrap();
    assert_eq!(verify(target(&backend).await.as_mut(), &[]).await.committed.len(), 1);
}

#[tokio::test]
async fn model_must_be_chosen_among_several() {
    let models = [("big", Arc::new(FakeModel::new()) as _), ("small", Arc::new(FakeModel::new()) as _)];
    let node = FakeNode::with_models(models, None, Clock::default()).await;
    let error = Node::connect(&node.spec()).await.err().unwrap().to_string();
    assert!(error.ends_with("lends several models: choose one with `model`: big, small"), "{error}");
    let spec = |name: &str| NodeSpec { model: Some(name.to_owned()), ..node.spec() };
    let error = Node::connect(&spec("huge")).await.err().unwrap().to_string();
    assert!(error.ends_with("lends no model 'huge'; it has: big, small"), "{error}");
    assert_eq!(Node::connect(&spec("small")).await.unwrap().name(), "small");
}

#[tokio::test]
async fn connect_error_names_the_node() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = probe(&url, None).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("node {url}: ")), "{error}");
    assert!(error.ends_with("is `tightwad node` running there, and can this machine reach it?"), "{error}");
}

#[tokio::test]
async fn node_with_another_version_is_refused() {
    let facts = NodeFacts {
        tightwad: "9.9".to_owned(),
        protocol: PROTOCOL_VERSION + 1,
        unix_ms: 0,
        sessions: 0,
        models: Vec::new(),
    };
    let body = to_checked_json(&facts).unwrap();
    let paths = axum::Router::new().route("/v1/node", axum::routing::get(|| async move { body }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, paths).into_future());
    let error = probe(&url, None).await.unwrap_err().to_string();
    assert!(error.contains("runs tightwad 9.9 with version 2 of the protocol"), "{error}");
}

#[tokio::test]
async fn probe_reports_the_facts_of_a_node() {
    let node = FakeNode::new(Arc::new(FakeModel::new())).await;
    let _session = target(&node.connect().await).await;
    let health = probe(&node.spec().url, None).await.unwrap();
    assert_eq!((health.facts.sessions, health.facts.models[0].name.as_str()), (1, "model"));
    assert!(health.clock_skew < Duration::from_secs(5), "{:?}", health.clock_skew);
}

#[tokio::test]
async fn node_generates_a_whole_answer() {
    let node = FakeNode::new(Arc::new(FakeModel::new())).await;
    let (sink, mut events) = tokio::sync::mpsc::channel(100);
    let request = Request::clone(&request(6));
    let outcome = node.connect().await.generate(request, sink).await.unwrap();
    let mut text = String::new();
    while let Some(event) = events.recv().await {
        text.push_str(&event.text);
    }
    assert_eq!(tokens(&text), FakeModel::continuation(&tokens("hello"), 6));
    assert_eq!((outcome.finish_reason, outcome.usage.completion_tokens), (FinishReason::Length, 6));
}

/// A drafter on a node.
async fn drafter(node: &FakeNode) -> Box<dyn Drafter> {
    let prepared = FakeModel::new().prepare(&request(100)).await.unwrap();
    node.connect().await.open_drafter(&prepared).await.unwrap()
}

async fn propose(drafter: &mut dyn Drafter, output: &[TokenId]) -> Vec<TokenId> {
    let proposals = drafter.propose(output, 4, 0.3).await.unwrap();
    // The third probability is 1/3, rounded by the node. The fourth one is below 0.3.
    let probabilities: Vec<f32> = proposals.iter().map(|proposal| proposal.probability).collect();
    assert_eq!(probabilities, [1.0, 0.5, 0.333]);
    proposals.into_iter().map(|proposal| proposal.token).collect()
}

#[tokio::test]
async fn drafter_sends_only_new_tokens() {
    let node = FakeNode::new(Arc::new(FakeModel::new())).await;
    let mut drafter = drafter(&node).await;
    assert!(node.calls("sessions").is_empty(), "the first proposal opens the session");
    for output in ["", "ab", "abcd", "abX", "abX"] {
        let proposed = propose(drafter.as_mut(), &tokens(output)).await;
        let expected = FakeModel::continuation(&tokens(&format!("hello{output}")), 3);
        assert_eq!(proposed, expected, "after {output}");
    }
    let sent =
        node.calls("propose").into_iter().map(|call| (call.body["at"].clone(), call.body["tokens"].clone()));
    let expected = [(5, ""), (5, "ab"), (7, "cd"), (7, "X"), (8, "")];
    let expected = expected.map(|(at, text)| (Value::from(at), json!(tokens(text))));
    assert_eq!(sent.collect::<Vec<_>>(), expected);
    assert_eq!(node.calls("sessions").len(), 1);
}

#[tokio::test]
async fn lost_drafter_receives_the_whole_output_again() {
    for fault in [Fault::LoseReply, Fault::ChangeReply, Fault::ChangeCall, Fault::ExpireSession] {
        let model = FakeModel::new();
        let node = FakeNode::new(Arc::new(model.clone())).await;
        let mut drafter = drafter(&node).await;
        propose(drafter.as_mut(), &tokens("ab")).await;
        node.inject("propose", fault);
        let proposed = propose(drafter.as_mut(), &tokens("abcd")).await;
        assert_eq!(proposed, FakeModel::continuation(&tokens("helloabcd"), 3), "{fault:?}");
        assert_eq!(node.calls("propose")[2].body["tokens"], json!(tokens("abcd")), "{fault:?}");
        assert_eq!(model.opened.lock().unwrap().len(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn drafter_fails_after_two_lost_replies() {
    let node = FakeNode::new(Arc::new(FakeModel::new())).await;
    let mut drafter = drafter(&node).await;
    node.inject("propose", Fault::LoseReply);
    node.inject("propose", Fault::LoseReply);
    let error = drafter.propose(&[], 4, 0.0).await.unwrap_err();
    assert!(matches!(error, BackendError::Failed { .. }), "{error}");
    assert_eq!(node.calls("propose").len(), 2);
}
