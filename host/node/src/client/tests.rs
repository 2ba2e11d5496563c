use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tightwad_core::{
    Backend, BackendError, Clock, Drafter, DrafterSource, Finish, Generator, Left, Prompt, Request, Sampling,
    SamplingSpec, Target, TargetSource, Token, TokenId, Verified,
};
use tokio::net::TcpListener;

use crate::client::model::{Node, NodeSpec};
use crate::client::probe::probe;
use crate::protocol::facts::{NodeFacts, PROTOCOL};
use crate::protocol::seal::seal;
use crate::testing::{Accident, FakeNode, Model};

/// The tokens of a prompt.
fn tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(u32::from).collect()
}

fn request(max_tokens: u32) -> Arc<Request> {
    let spec = SamplingSpec { logprobs: Some(2), ..SamplingSpec::default() };
    let sampling = Sampling::new(spec).unwrap();
    let prompt = Prompt::Text("hello".to_owned());
    Arc::new(Request { prompt, sampling, max_tokens: Some(max_tokens), ..Request::default() })
}

async fn target(backend: &dyn TargetSource) -> Box<dyn Target> {
    backend.open_target(&request(100), None).await.unwrap().session
}

/// A node that lends a model, the model, and a session on it.
async fn session() -> (FakeNode, Model, Box<dyn Target>) {
    let model = Model::new();
    let node = FakeNode::of(Arc::new(model.clone())).await;
    let session = target(&node.connect().await).await;
    (node, model, session)
}

/// A verification without the time that it took.
async fn verify(target: &mut dyn Target, draft: &[TokenId]) -> Verified {
    untimed(target.verify(&draft.to_vec().into()).await.unwrap())
}

fn untimed(verified: Verified) -> Verified {
    Verified { took: Duration::ZERO, cost: Duration::ZERO, ..verified }
}

async fn decode(target: &mut dyn Target, max: u32) -> Vec<Verified> {
    target.decode(max).await.unwrap();
    let mut steps = Vec::new();
    while let Some(step) = target.step().await.unwrap() {
        steps.push(untimed(step));
    }
    steps
}

fn committed(steps: &[Verified]) -> Vec<TokenId> {
    steps.iter().flat_map(|step| &step.committed).map(|committed| committed.token).collect()
}

#[tokio::test]
async fn a_session_over_the_wire_answers_as_the_model_does() {
    let (_node, _, mut there) = session().await;
    let mut here = target(&Model::new()).await;
    let right = Model::continuation(&tokens("hello"), 3);
    let half = [right[0], u32::from(b'?'), right[2]];
    for draft in [&right[..0], &right[1..], &half] {
        let verified = verify(there.as_mut(), draft).await;
        assert_eq!(verified, verify(here.as_mut(), draft).await, "{draft:?}");
        assert!(verified.committed[0].logprobs.is_some());
    }
    assert_eq!(decode(there.as_mut(), 5).await, decode(here.as_mut(), 5).await);
    assert_eq!(verify(there.as_mut(), &right).await, verify(here.as_mut(), &right).await);
    assert_eq!(there.bytes(right[0]), here.bytes(right[0]));
    // A decode that the caller leaves.
    there.decode(50).await.unwrap();
    let step = untimed(there.step().await.unwrap().unwrap());
    here.decode(1).await.unwrap();
    assert_eq!(step, untimed(here.step().await.unwrap().unwrap()));
    assert_eq!(verify(there.as_mut(), &[]).await, verify(here.as_mut(), &[]).await);
}

#[tokio::test]
async fn an_open_session_says_what_the_model_made_of_the_request() {
    let node = FakeNode::of(Arc::new(Model::new())).await;
    let opened = node.connect().await.open_target(&request(7), None).await.unwrap();
    assert_eq!((opened.cached, opened.task.max_tokens), (3, 7));
    assert_eq!((&*opened.task.prompt, &*opened.task.text), (tokens("hello").as_slice(), "hello"));
    let mut session = opened.session;
    let steps = decode(session.as_mut(), 20).await;
    assert_eq!((steps.len(), steps[6].finish), (7, Some(Finish::Length)));
}

#[tokio::test]
async fn a_session_is_opened_from_where_another_was_left() {
    let node = FakeNode::of(Arc::new(Model::new())).await;
    let (prompt, output) = (tokens("hello"), tokens("wor"));
    let left = Left { prompt: prompt.clone().into(), output: output.clone(), max_tokens: 100 };
    let opened = node.connect().await.open_target(&request(100), Some(&left)).await.unwrap();
    let mut session = opened.session;
    let steps = decode(session.as_mut(), 4).await;
    assert_eq!(committed(&steps), Model::continuation(&[prompt, output].concat(), 4));
}

#[tokio::test]
async fn tokens_that_were_accepted_travel_with_the_next_call() {
    let (node, _, mut there) = session().await;
    assert_eq!(there.accept(&tokens("ab")).await.unwrap(), 2);
    assert!(node.calls("verify").is_empty());
    let verified = verify(there.as_mut(), &[]).await;
    assert_eq!(committed(&[verified]), Model::continuation(&tokens("helloab"), 1));
    assert_eq!(node.calls("verify")[0].body["unverified"], json!(tokens("ab")));
    verify(there.as_mut(), &[]).await;
    assert_eq!(node.calls("verify")[1].body.get("unverified"), None);
}

#[tokio::test]
async fn a_lost_answer_is_asked_again_and_not_applied_twice() {
    for accident in [Accident::LoseAnswer, Accident::ChangeAnswer] {
        let (node, model, mut there) = session().await;
        let draft = Model::continuation(&tokens("hello"), 2);
        node.order("verify", accident);
        let verified = verify(there.as_mut(), &draft).await;
        assert_eq!(committed(&[verified]), Model::continuation(&tokens("hello"), 3), "{accident:?}");
        assert_eq!((node.calls("verify").len(), model.passes()), (2, 1), "{accident:?}");
        assert_eq!(model.opened.lock().unwrap().len(), 1, "{accident:?}");
        let next = verify(there.as_mut(), &[]).await;
        assert_eq!(committed(&[next]), Model::continuation(&tokens("hello"), 4)[3..]);
    }
}

#[tokio::test]
async fn a_call_that_was_garbled_is_sent_again() {
    let (node, model, mut there) = session().await;
    node.order("verify", Accident::ChangeCall);
    let verified = verify(there.as_mut(), &[]).await;
    assert_eq!(committed(&[verified]), Model::continuation(&tokens("hello"), 1));
    let calls = node.calls("verify");
    assert_eq!((calls.len(), model.passes()), (2, 1));
    assert_eq!(calls[0].body, calls[1].body);
}

#[tokio::test]
async fn an_expired_session_is_opened_again_from_the_committed_tokens() {
    let (node, model, mut there) = session().await;
    let first = verify(there.as_mut(), &Model::continuation(&tokens("hello"), 2)).await;
    node.order("verify", Accident::Expire);
    node.order("decode", Accident::Expire);
    let second = verify(there.as_mut(), &[]).await;
    let third = decode(there.as_mut(), 2).await;
    let all = [committed(&[first, second]), committed(&third)].concat();
    assert_eq!(all, Model::continuation(&tokens("hello"), 6));
    let opened = model.opened.lock().unwrap().clone();
    let output = |count| Model::continuation(&tokens("hello"), count);
    let expected = [output(0), output(3), output(4)].map(|output| (tokens("hello"), output));
    assert_eq!(opened, expected);
}

#[tokio::test]
async fn a_decode_that_breaks_goes_on_behind_the_last_token() {
    for accident in [Accident::LoseAnswer, Accident::CutAnswer] {
        let (node, model, mut there) = session().await;
        node.order("decode", accident);
        let steps = decode(there.as_mut(), 6).await;
        assert_eq!(committed(&steps), Model::continuation(&tokens("hello"), 6), "{accident:?}");
        let received = usize::from(accident == Accident::CutAnswer);
        let opened = model.opened.lock().unwrap().clone();
        let last = (tokens("hello"), Model::continuation(&tokens("hello"), received));
        assert_eq!(opened, [(tokens("hello"), Vec::new()), last], "{accident:?}");
    }
}

#[tokio::test]
async fn a_session_that_is_dropped_is_closed_on_the_node() {
    let (node, _, there) = session().await;
    assert_eq!(node.sessions(), 1);
    drop(there);
    let closed = async {
        while node.sessions() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}

#[tokio::test]
async fn other_weights_under_the_same_name_are_refused() {
    let model = Model::new();
    let node = FakeNode::of(Arc::new(model.clone())).await;
    let spec = NodeSpec { patience: Duration::ZERO, ..node.spec() };
    let backend = Node::connect(&spec).await.unwrap();
    *model.weights.lock().unwrap() = "ef".repeat(32);
    let error = backend.open_target(&request(100), None).await.err().unwrap();
    assert!(error.to_string().contains("serves another model as 'model'"), "{error}");
}

#[tokio::test]
async fn a_wrong_token_is_a_clear_error() {
    let token = Token::new("right").unwrap();
    let model = Arc::new(Model::new());
    let node = FakeNode::lending([("model", model)], Some(token.clone()), Clock::default()).await;
    for wrong in [None, Some(Token::new("wrong").unwrap())] {
        let error = Node::connect(&NodeSpec { token: wrong, ..node.spec() }).await.err().unwrap().to_string();
        let wanted = "it does not take this token: give the one it was started with as `token`";
        assert!(error.ends_with(wanted), "{error}");
    }
    let backend = Node::connect(&NodeSpec { token: Some(token), ..node.spec() }).await.unwrap();
    assert_eq!(verify(target(&backend).await.as_mut(), &[]).await.committed.len(), 1);
}

#[tokio::test]
async fn one_of_several_models_must_be_chosen() {
    let models = [("big", Arc::new(Model::new()) as _), ("small", Arc::new(Model::new()) as _)];
    let node = FakeNode::lending(models, None, Clock::default()).await;
    let error = Node::connect(&node.spec()).await.err().unwrap().to_string();
    assert!(error.ends_with("lends several models: choose one with `model`: big, small"), "{error}");
    let spec = |name: &str| NodeSpec { model: Some(name.to_owned()), ..node.spec() };
    let error = Node::connect(&spec("huge")).await.err().unwrap().to_string();
    assert!(error.ends_with("lends no model 'huge'; it has: big, small"), "{error}");
    assert_eq!(Node::connect(&spec("small")).await.unwrap().name(), "small");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = probe(&url, None).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("node {url}: ")), "{error}");
    assert!(error.ends_with("is `tightwad node` running there, and does this machine reach it?"), "{error}");
}

#[tokio::test]
async fn a_node_of_another_version_is_refused() {
    let facts = NodeFacts {
        tightwad: "9.9".to_owned(),
        protocol: PROTOCOL + 1,
        unix_ms: 0,
        sessions: 0,
        models: Vec::new(),
    };
    let body = seal(&facts).unwrap();
    let paths = axum::Router::new().route("/v1/node", axum::routing::get(|| async move { body }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, paths).into_future());
    let error = probe(&url, None).await.unwrap_err().to_string();
    assert!(error.contains("runs tightwad 9.9 and speaks version 2 of the protocol"), "{error}");
}

#[tokio::test]
async fn a_healthy_node_tells_its_facts() {
    let node = FakeNode::of(Arc::new(Model::new())).await;
    let _session = target(&node.connect().await).await;
    let health = probe(&node.spec().url, None).await.unwrap();
    assert_eq!((health.facts.sessions, health.facts.models[0].name.as_str()), (1, "model"));
    assert!(health.skew < Duration::from_secs(5), "{:?}", health.skew);
}

#[tokio::test]
async fn a_whole_answer_is_generated_over_the_wire() {
    let node = FakeNode::of(Arc::new(Model::new())).await;
    let (sink, mut events) = tokio::sync::mpsc::channel(100);
    let request = Request::clone(&request(6));
    let outcome = node.connect().await.generate(request, sink).await.unwrap();
    let mut text = String::new();
    while let Some(event) = events.recv().await {
        text.push_str(&event.text);
    }
    assert_eq!(tokens(&text), Model::continuation(&tokens("hello"), 6));
    assert_eq!((outcome.finish, outcome.usage.completion_tokens), (Finish::Length, 6));
}

/// A drafter on a node.
async fn drafter(node: &FakeNode) -> Box<dyn Drafter> {
    let task = Model::new().read(&request(100)).await.unwrap();
    node.connect().await.open_drafter(&task).await.unwrap()
}

async fn propose(drafter: &mut dyn Drafter, output: &[TokenId]) -> Vec<TokenId> {
    let proposals = drafter.propose(output, 4, 0.3).await.unwrap();
    // The third has the probability 1/3, rounded on the way; the fourth has less than 0.3.
    let probabilities: Vec<f32> = proposals.iter().map(|proposal| proposal.probability).collect();
    assert_eq!(probabilities, [1.0, 0.5, 0.333]);
    proposals.into_iter().map(|proposal| proposal.token).collect()
}

#[tokio::test]
async fn a_drafter_resends_only_what_is_new() {
    let node = FakeNode::of(Arc::new(Model::new())).await;
    let mut drafter = drafter(&node).await;
    assert!(node.calls("sessions").is_empty(), "it is opened with the first proposal");
    for output in ["", "ab", "abcd", "abX", "abX"] {
        let proposed = propose(drafter.as_mut(), &tokens(output)).await;
        let wanted = Model::continuation(&tokens(&format!("hello{output}")), 3);
        assert_eq!(proposed, wanted, "after {output}");
    }
    let sent =
        node.calls("propose").into_iter().map(|call| (call.body["at"].clone(), call.body["tokens"].clone()));
    let wanted = [(5, ""), (5, "ab"), (7, "cd"), (7, "X"), (8, "")];
    let wanted = wanted.map(|(at, text)| (Value::from(at), json!(tokens(text))));
    assert_eq!(sent.collect::<Vec<_>>(), wanted);
    assert_eq!(node.calls("sessions").len(), 1);
}

#[tokio::test]
async fn a_drafter_that_is_lost_is_told_everything_again() {
    for accident in [Accident::LoseAnswer, Accident::ChangeAnswer, Accident::ChangeCall, Accident::Expire] {
        let model = Model::new();
        let node = FakeNode::of(Arc::new(model.clone())).await;
        let mut drafter = drafter(&node).await;
        propose(drafter.as_mut(), &tokens("ab")).await;
        node.order("propose", accident);
        let proposed = propose(drafter.as_mut(), &tokens("abcd")).await;
        assert_eq!(proposed, Model::continuation(&tokens("helloabcd"), 3), "{accident:?}");
        assert_eq!(node.calls("propose")[2].body["tokens"], json!(tokens("abcd")), "{accident:?}");
        assert_eq!(model.opened.lock().unwrap().len(), 2, "{accident:?}");
    }
}

#[tokio::test]
async fn a_drafter_that_is_lost_twice_is_given_up() {
    let node = FakeNode::of(Arc::new(Model::new())).await;
    let mut drafter = drafter(&node).await;
    node.order("propose", Accident::LoseAnswer);
    node.order("propose", Accident::LoseAnswer);
    let error = drafter.propose(&[], 4, 0.0).await.unwrap_err();
    assert!(matches!(error, BackendError::Failed { .. }), "{error}");
    assert_eq!(node.calls("propose").len(), 2);
}
