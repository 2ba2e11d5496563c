//! Nodes that stay silent, never end, or send wrong values.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, OpenedTarget, Prompt, Request, Sampling, SamplingSpec,
    Scorer, TargetSource,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::model::{Node, NodeSpec};
use crate::client::probe::probe;
use crate::protocol::checksum::to_checked_json;
use crate::testing::FakeModel;

/// A server that replies to the calls of one name as a test specifies, and correctly to others.
struct HostileNode {
    url: String,
    _serving: JoinSet<()>,
}

/// A message with its checksum.
fn checked(message: &Value) -> Response {
    to_checked_json(message).unwrap().into_response()
}

fn facts() -> Value {
    let model = json!({"name": "model", "vocabulary": "ab".repeat(32), "weights": "cd", "description": "",
        "bytes": 1, "context": 100, "slots": 1, "tools": false, "time_per_token_ns": 0, "time_per_row_ns": 0,
        "active": 0, "waiting": 0});
    json!({"tightwad": "0.1.0", "protocol": 1, "unix_ms": 0, "sessions": 0, "models": [model]})
}

fn open_reply() -> Value {
    json!({"session": "1a-2b", "weights": "cd", "tokens": [104, 105], "text": "hi", "cached": 0, "max_tokens": 50})
}

impl HostileNode {
    async fn start(name: &'static str, reply: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        let router = axum::Router::new().fallback(async move |request: HttpRequest| {
            let path = request.uri().path().to_owned();
            match path.rsplit('/').next().unwrap_or_default() {
                called if called == name => reply(),
                "node" => checked(&facts()),
                "sessions" => checked(&open_reply()),
                _ => StatusCode::OK.into_response(),
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).into_future().await.unwrap() });
        Self { url, _serving: serving }
    }

    async fn connect(&self) -> Node {
        let spec = NodeSpec {
            url: self.url.clone(),
            model: None,
            token: None,
            name: Some("far".to_owned()),
            wait_timeout: Duration::ZERO,
            supervised_device: None,
        };
        Node::connect(&spec).await.unwrap()
    }

    async fn target(&self) -> OpenedTarget {
        self.connect().await.open_target(&request(), None).await.unwrap()
    }

    async fn drafter(&self) -> Box<dyn Drafter> {
        let prepared = FakeModel::new().prepare(&request()).await.unwrap();
        self.connect().await.open_drafter(&prepared).await.unwrap()
    }
}

fn request() -> Arc<Request> {
    let spec = SamplingSpec { logprobs: Some(1), ..SamplingSpec::default() };
    let (prompt, sampling) = (Prompt::Text("hi".into()), Sampling::new(spec).unwrap());
    Arc::new(Request { prompt, sampling, max_tokens: Some(20), ..Request::default() })
}

/// A body that repeats `part` every second and never ends.
fn endless(part: &'static str) -> Body {
    Body::from_stream(stream::repeat(part).then(|part| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, std::convert::Infallible>(part)
    }))
}

/// The error of a verification of two proposals with this reply.
async fn verify_error(reply: impl Fn() -> Response + Clone + Send + Sync + 'static) -> String {
    let node = HostileNode::start("verify", reply).await;
    let mut target = node.target().await.session;
    let error = target.verify(&vec![1, 2].into()).await.unwrap_err();
    assert!(error.allows_failover(), "{error}");
    let error = error.to_string();
    assert!(error.starts_with("node far failed: node far sent an invalid reply: "), "{error}");
    error["node far failed: node far sent an invalid reply: ".len()..].to_owned()
}

#[tokio::test]
async fn steps_with_wrong_values_are_refused() {
    let token = |count: usize| vec![json!([1, "x"]); count];
    let logprobs = json!({"logprob": -1.0, "top": vec![json!([1, "x", -1.0]); 21]});
    for (step, expected) in [
        (json!({"tokens": token(4)}), "it has 4 tokens, and the call asked for 3"),
        (
            json!({"tokens": token(3), "accepted": u32::MAX}),
            "it has 4294967295 accepted proposals, and the call asked for 2",
        ),
        (json!({"tokens": [[u32::MAX, "x"]]}), "it has the token 4294967295"),
        (json!({"tokens": [[1, "x".repeat(5000)]]}), "it has a token of 5000 bytes"),
        (
            json!({"tokens": token(1), "logprobs": [{"logprob": 0.0}, {"logprob": 0.0}]}),
            "it has 2 log-probabilities, and the call asked for 1",
        ),
        (
            json!({"tokens": token(1), "logprobs": [logprobs]}),
            "it has 21 alternatives, and the call asked for 20",
        ),
    ] {
        assert_eq!(verify_error(move || checked(&step)).await, expected);
    }
}

#[tokio::test]
async fn reply_to_another_round_is_refused() {
    let step = json!({"tokens": [[1, "x"], [2, "x"], [3, "x"]], "accepted": 2});
    let node = HostileNode::start("verify", move || checked(&step)).await;
    let mut target = node.target().await.session;
    assert_eq!(target.verify(&vec![1, 2].into()).await.unwrap().accepted, 2);
    let error = target.verify(&vec![7, 8].into()).await.unwrap_err().to_string();
    assert!(error.ends_with("it accepts proposals that the call did not make"), "{error}");
}

#[tokio::test]
async fn steps_with_wrong_types_are_refused() {
    for step in [
        json!({"tokens": 5}),
        json!({"tokens": [[-1, "x"]]}),
        json!({"tokens": [["1", "x"]]}),
        json!({"tokens": [[1, "x"]], "accepted": -1}),
        json!({"tokens": [[1, "x"]], "elapsed_us": 1e300}),
        json!([]),
    ] {
        let error = verify_error(move || checked(&step)).await;
        assert!(
            error.starts_with("the message is not valid: ") || error.starts_with("the checksum"),
            "{error}"
        );
    }
    assert!(verify_error(|| "{}".into_response()).await.starts_with("the checksum is missing"));
}

#[tokio::test]
async fn reply_of_a_terabyte_is_refused() {
    let reply = || ([("content-length", "1000000000000")], endless("x")).into_response();
    let node = HostileNode::start("verify", reply).await;
    let error = node.target().await.session.verify(&Vec::new().into()).await.unwrap_err().to_string();
    assert_eq!(error, "node far failed: node far: the reply has more than 67108864 bytes");
    let node = HostileNode::start("node", || checked(&json!({"tightwad": "x".repeat(2 << 20)}))).await;
    let error = probe(&node.url, None).await.unwrap_err().to_string();
    assert!(error.contains("the reply has more than 1048576 bytes"), "{error}");
}

#[tokio::test]
async fn silent_and_dripping_nodes_are_given_up() {
    let silent = || Body::from_stream(stream::pending::<Result<String, std::io::Error>>()).into_response();
    for reply in [silent, || endless("x").into_response()] {
        let node = HostileNode::start("verify", reply).await;
        let mut target = node.target().await.session;
        tokio::time::pause();
        let error = target.verify(&Vec::new().into()).await.unwrap_err();
        tokio::time::resume();
        assert!(error.allows_failover() && error.to_string().contains("reply"), "{error}");
    }
}

#[tokio::test]
async fn empty_lines_do_not_keep_a_decode_alive_for_ever() {
    let node = HostileNode::start("decode", || endless("\n").into_response()).await;
    let mut target = node.target().await.session;
    target.decode(5).await.unwrap();
    tokio::time::pause();
    let error = target.step().await.unwrap_err();
    assert!(error.to_string().contains("reply"), "{error}");
}

#[tokio::test]
async fn decode_takes_only_the_tokens_that_it_asked_for() {
    let step = || to_checked_json(&json!({"tokens": [[1, "x"], [1, "x"], [1, "x"]]})).unwrap();
    let reply = move || [b"\n".as_slice(), &step(), b"\n", &step(), b"\n"].concat().into_response();
    let node = HostileNode::start("decode", reply).await;
    let mut target = node.target().await.session;
    target.decode(5).await.unwrap();
    assert_eq!(target.step().await.unwrap().unwrap().committed.len(), 3);
    let error = target.step().await.unwrap_err().to_string();
    assert!(error.ends_with("it has 3 tokens, and the call asked for 2"), "{error}");
}

#[tokio::test]
async fn decode_that_ends_early_is_explained() {
    let node = HostileNode::start("decode", || "".into_response()).await;
    let mut target = node.target().await.session;
    target.decode(5).await.unwrap();
    let error = target.step().await.unwrap_err().to_string();
    assert!(error.ends_with("ended its stream before the last token; a proxy may close idle connections"));
}

#[tokio::test]
async fn session_id_that_is_a_path_is_refused() {
    for id in ["../../swarm", "a?b", "", "x y", &"1".repeat(65)] {
        let mut opened = open_reply();
        opened["session"] = json!(id);
        let node = HostileNode::start("sessions", move || checked(&opened)).await;
        let error = node.connect().await.open_target(&request(), None).await.err().unwrap().to_string();
        assert!(error.ends_with("it has an invalid session id"), "{error}");
    }
}

#[tokio::test]
async fn opened_session_keeps_the_limits_of_the_request() {
    let mut opened = open_reply();
    (opened["max_tokens"], opened["cached"]) = (json!(u32::MAX), json!(u32::MAX));
    let node = HostileNode::start("sessions", move || checked(&opened)).await;
    let opened = node.target().await;
    assert_eq!((opened.prepared.max_tokens, opened.cached_tokens), (20, 2));
}

#[tokio::test]
async fn proposals_are_limited_and_their_probabilities_bounded() {
    let proposals = json!({"proposals": [[1, 1e30], [2, -5.0], [3, 0.5]], "elapsed_us": u64::MAX});
    let node = HostileNode::start("propose", move || checked(&proposals)).await;
    let proposed = node.drafter().await.propose(&[], 3, 0.0).await.unwrap();
    assert_eq!(proposed.iter().map(|proposal| proposal.probability).collect::<Vec<_>>(), [1.0, 0.0, 0.5]);
    let error = node.drafter().await.propose(&[], 2, 0.0).await.unwrap_err().to_string();
    assert!(error.ends_with("it has 3 proposals, and the call asked for 2"), "{error}");
}

#[tokio::test]
async fn times_of_a_node_cannot_overflow() {
    let node = HostileNode::start("node", || {
        let mut facts = facts();
        for key in ["time_per_token_ns", "time_per_row_ns"] {
            facts["models"][0][key] = json!(u64::MAX);
        }
        checked(&facts)
    })
    .await;
    let cost = node.drafter().await.expected_cost();
    assert!(cost.time_per_token <= Duration::from_secs(3600) && cost.startup > Duration::ZERO);
    let step = json!({"tokens": [[1, "x"]], "elapsed_us": u64::MAX, "cost_us": u64::MAX, "ties": u32::MAX});
    let node = HostileNode::start("verify", move || checked(&step)).await;
    let verified = node.target().await.session.verify(&Vec::new().into()).await.unwrap();
    assert_eq!((verified.ties, verified.cost), (1, Duration::from_secs(3600)));
}

#[tokio::test]
async fn scores_and_texts_have_the_requested_count() {
    let score = json!({"token": 1, "text": "x", "logprob": 1e38, "rank": 0, "best": 1, "best_logprob": -1.0});
    let scores = json!({"tokens": [score, score]});
    let hostile = HostileNode::start("score", move || checked(&scores)).await;
    let node = hostile.connect().await;
    assert_eq!(node.score(&request(), "xx", 0..2).await.unwrap()[0].logprob, 0.0);
    assert!(node.score(&request(), "xx", 0..1).await.is_err());
    let hostile = HostileNode::start("detokenize", || checked(&json!({"pieces": ["x"]}))).await;
    let error =
        hostile.connect().await.tokenizer().unwrap().detokenize(&[1, 2]).await.unwrap_err().to_string();
    assert!(error.ends_with("it has 1 texts, and the call asked for 2"), "{error}");
}

#[tokio::test]
async fn texts_of_a_node_are_printable() {
    let node = HostileNode::start("node", || {
        let mut facts = facts();
        facts["models"][0]["description"] = json!("\u{1b}[2Jllama \u{202e}135M");
        let mut second = facts["models"][0].clone();
        second["name"] = json!("\u{1b}[2J");
        facts["models"].as_array_mut().unwrap().push(second);
        checked(&facts)
    })
    .await;
    let models = probe(&node.url, None).await.unwrap().facts.models;
    assert_eq!((models.len(), models[0].facts.description.as_str()), (1, "[2Jllama 135M"));
}

#[tokio::test]
async fn error_of_a_node_names_the_node_and_not_its_address() {
    let message = format!("\u{1b}[2J{}", "no memory ".repeat(1000));
    let body = json!({"error": {"message": message}}).to_string();
    let reply = move || (StatusCode::INTERNAL_SERVER_ERROR, body.clone()).into_response();
    let node = HostileNode::start("verify", reply).await;
    let error = node.target().await.session.verify(&Vec::new().into()).await.unwrap_err().to_string();
    assert!(error.starts_with("node far failed: 500 Internal Server Error: [2Jno memory no"), "{error}");
    assert!(error.chars().count() < 300, "{error}");
    // The body of a proxy is not JSON.
    let reply = || (StatusCode::BAD_GATEWAY, "<html>").into_response();
    let node = HostileNode::start("verify", reply).await;
    let error = node.target().await.session.verify(&Vec::new().into()).await.unwrap_err();
    assert!(matches!(&error, BackendError::Failed { .. }), "{error}");
    drop(node);
    let node = HostileNode::start("other", || StatusCode::OK.into_response()).await;
    let mut target = node.target().await.session;
    drop(node);
    let error = target.verify(&Vec::new().into()).await.unwrap_err().to_string();
    assert!(error.starts_with("node far failed: ") && !error.contains("http"), "{error}");
}

#[tokio::test]
async fn password_in_the_address_is_refused_and_not_shown() {
    let error = probe("http://user:secret@127.0.0.1:1", None).await.unwrap_err().to_string();
    assert!(error.contains("must not have a user name or a password"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn address_of_a_node_may_end_with_v1() {
    let node = HostileNode::start("other", || StatusCode::OK.into_response()).await;
    for suffix in ["/", "/v1", "/v1/"] {
        let health = probe(&format!("{}{suffix}", node.url), None).await.unwrap();
        assert_eq!(health.facts.models[0].name, "model");
    }
    assert_eq!(node.connect().await.name(), "far");
}
