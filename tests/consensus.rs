//! Consensus: where drafters agree, the host does not ask the target. Labels and audits cover such tokens, and lost
//! drafters do not block an answer.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tightwad_netlab::Proxy;

use crate::support::{
    LyingServer, NONSENSE_WORDS, Node, PROMPTS, Server, one_core, small_model, small_model_at, smollm2,
    smollm2_at,
};

const RULES: [&str; 4] = ["strict", "majority", "any_disagree", "hedge"];

/// One thread per node: processes that wait for each other on the same cores slow each other down.
const NODE_ARGUMENTS: [&str; 4] = ["--context", "1024", "--threads", "1"];

/// Serves `target` with `drafters` (Lua expressions): under every rule, and exactly with chains and trees.
/// `fields` are further fields of `tw.consensus`.
fn script(target: &Path, drafters: &str, fields: &str) -> String {
    let rules = RULES.map(|rule| {
        format!(
            "{rule} = tw.consensus {{ target = target, drafters = drafters, rule = \"{rule}\", max_draft_tokens = 6{fields} }},\n"
        )
    });
    format!(
        r#"local tw = require "tightwad"
local target = tw.model {{ path = "{}", name = "target", context = 1024, slots = 8, threads = 1 }}
local drafters = {{ {drafters} }}
return tw.serve {{ models = {{
  plain = target,
  exact = tw.speculation {{ target = target, drafters = drafters }},
  tree = tw.speculation {{ target = target, drafters = drafters,
    settings = {{ fixed_draft = 4, tree = "always" }} }},
  calls = tw.speculation {{ target = target, drafters = drafters,
    settings = {{ fixed_draft = 4, tree = "calls" }} }},
{}}} }}"#,
        target.display(),
        rules.concat()
    )
}

/// Starts a node for each drafter.
fn start_nodes(models: [PathBuf; 3]) -> Vec<Node> {
    models.map(|model| Node::start(&[("drafter", &model)], &NODE_ARGUMENTS)).into()
}

/// SmolLM2 at two, three and eight bits. With real text the drafters agree where a word is likely.
fn start_smollm2_nodes() -> Vec<Node> {
    start_nodes(["q2_k", "q3_k_m", "q8_0"].map(smollm2_at))
}

/// The small model at three, four and eight bits.
fn start_small_nodes() -> Vec<Node> {
    start_nodes(["q3_k_m", "q4_k_m", "q8_0"].map(small_model_at))
}

/// Lua expressions of nodes, separated by commas.
fn lua_nodes(urls: &[String]) -> String {
    let node = |(index, url): (usize, &String)| {
        format!("tw.node {{ url = \"{url}\", name = \"d{index}\", wait_timeout = 1 }}")
    };
    urls.iter().enumerate().map(node).collect::<Vec<_>>().join(", ")
}

fn urls(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(Node::url).collect()
}

/// The status of the mode with this `rule`, from `/v1/tightwad/status`.
async fn status(server: &Server, rule: &str) -> Value {
    let (_, text) = server.get("/v1/tightwad/status").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    let modes = status["modes"].as_array().unwrap().clone();
    modes.into_iter().find(|mode| mode["rule"] == rule).unwrap_or(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_report_unverified_tokens_and_trees_stay_exact() {
    let _permit = one_core();
    let nodes = start_smollm2_nodes();
    let server = Server::start(&script(
        &smollm2(),
        &lua_nodes(&urls(&nodes)),
        ", audit_rate = 1.0, min_agreement = 0.0",
    ));
    for temperature in [0.0, 0.8] {
        for prompt in &PROMPTS[..2] {
            let fields = json!({"temperature": temperature, "top_p": 0.95, "max_tokens": 32});
            let (expected, _) = server.ask("plain", prompt, fields.clone()).await;
            for model in ["exact", "tree", "calls"] {
                let (text, report) = server.ask(model, prompt, fields.clone()).await;
                assert_eq!(text, expected, "{model}: {report}");
                assert_eq!(report["exact"], true, "{report}");
            }
            for rule in RULES {
                let (text, report) = server.ask(rule, prompt, fields.clone()).await;
                assert!(!text.is_empty());
                assert_eq!(
                    (&report["mode"], &report["exact"]),
                    (&json!("consensus"), &json!(false)),
                    "{report}"
                );
                assert_eq!(report["rule"], rule, "{report}");
                assert!(report["fallback"].is_null(), "{report}");
            }
        }
    }
    assert!(
        server.metric("tightwad_mode_verified_paths_total").await
            > server.metric("tightwad_mode_verifications_total").await,
        "no verification was of a tree"
    );
    for rule in RULES {
        // Audits run after the answers.
        let start = Instant::now();
        while status(&server, rule).await["audited_tokens"].as_u64().unwrap_or(0) == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "{rule}: {}", status(&server, rule).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let now = status(&server, rule).await;
        println!("{now}");
        assert!(now["unverified_tokens"].as_u64().unwrap() > 0, "{now}");
        assert!(now["agreement"].as_f64().unwrap() > 0.3, "{now}");
        assert!(
            now["drafters"].as_array().unwrap().iter().all(|drafter| drafter["wins"].as_u64() > Some(0)),
            "{now}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logprobs_and_constraints_come_from_the_target() {
    let _permit = one_core();
    let nodes = start_smollm2_nodes();
    let server = Server::start(&script(&smollm2(), &lua_nodes(&urls(&nodes)), ""));
    let body = json!({"model": "majority", "messages": [{"role": "user", "content": PROMPTS[0]}],
        "max_tokens": 24, "temperature": 0, "logprobs": true});
    let (_, answer) = server.post("/v1/chat/completions", &body).await;
    assert_eq!(answer["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 24, "{answer}");
    assert!(answer["tightwad"]["unverified"].is_null(), "{answer}");
    let mut plain = body.clone();
    plain["model"] = json!("plain");
    let (_, expected) = server.post("/v1/chat/completions", &plain).await;
    assert_eq!(answer["choices"][0]["message"], expected["choices"][0]["message"]);

    let schema = json!({"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "people": {"type": "integer"}},
        "required": ["name", "people"], "additionalProperties": false}}});
    let (text, _) = server.ask("majority", "Name a city.", json!({"response_format": schema})).await;
    let city: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(city["name"].is_string() && city["people"].is_i64(), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consensus_survives_lying_slow_and_dead_drafters() {
    let _permit = one_core();
    let mut nodes = start_small_nodes();
    let link = Proxy::start("127.0.0.1:0".parse().unwrap(), nodes[1].address).await.unwrap();
    let liar = LyingServer::start().await;
    let lua_liar = format!("tw.openai {{ url = \"{}\", model = \"liar\", name = \"liar\" }}", liar.url);
    let honest = urls(&nodes);
    let with_link = vec![honest[0].clone(), format!("http://{}", link.address()), honest[2].clone()];
    let fields = json!({"max_tokens": 32});
    let check_all = async |server: &Server, case: &str| {
        let (expected, _) = server.ask("plain", PROMPTS[0], fields.clone()).await;
        for model in ["exact", "tree"] {
            let (text, report) = server.ask(model, PROMPTS[0], fields.clone()).await;
            assert_eq!(text, expected, "{case}, {model}: {report}");
            assert!(report["fallback"].is_null(), "{case}, {model}: a drafter ended the mode: {report}");
        }
        for rule in RULES {
            let start = Instant::now();
            let (text, report) = server.ask(rule, PROMPTS[0], fields.clone()).await;
            println!("{case}, {rule}: {:?}, {report}", start.elapsed());
            assert_eq!(report["exact"], false);
            assert!(!text.is_empty() && report["fallback"].is_null(), "{case}, {rule}: {report}");
            assert!(
                !NONSENSE_WORDS.iter().any(|word| text.contains(word)),
                "{case}, {rule}: one liar among honest drafters: {text}"
            );
        }
    };

    let server =
        Server::start(&script(&small_model(), &format!("{}, {lua_liar}", lua_nodes(&honest[..2])), ""));
    check_all(&server, "one liar").await;
    drop(server);

    let server = Server::start(&script(&small_model(), &lua_nodes(&with_link), ""));
    check_all(&server, "no faults").await;
    link.faults().delay(Duration::from_millis(700));
    check_all(&server, "one slow").await;
    link.faults().delay(Duration::ZERO);
    nodes[2].kill();
    check_all(&server, "one dead").await;
    nodes[0].kill();
    nodes[1].kill();
    let (expected, _) = server.ask("plain", PROMPTS[0], fields.clone()).await;
    for rule in RULES {
        let start = Instant::now();
        let (text, report) = server.ask(rule, PROMPTS[0], fields.clone()).await;
        println!("all dead, {rule}: {:?}, {report}", start.elapsed());
        assert_eq!(text, expected, "only the target is left: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_tightens_the_rule_when_all_drafters_lie_alike() {
    let _permit = one_core();
    let liar = LyingServer::start().await;
    let lua_liars: Vec<String> = (0..3)
        .map(|index| {
            format!("tw.openai {{ url = \"{}\", model = \"liar\", name = \"liar{index}\" }}", liar.url)
        })
        .collect();
    let server = Server::start(&script(&small_model(), &lua_liars.join(", "), ", audit_rate = 1.0"));
    let (text, report) = server.ask("majority", PROMPTS[0], json!({"max_tokens": 32})).await;
    assert!(NONSENSE_WORDS.iter().any(|word| text.contains(word)), "the liars do not agree: {text}");
    assert_eq!(report["exact"], false);
    assert!(report["unverified"].as_u64() > Some(0), "{report}");
    // A rule changes only after 40 audited tokens, which takes several requests.
    let start = Instant::now();
    let mut rules = Vec::new();
    loop {
        let (text, report) = server.ask("majority", PROMPTS[1], json!({"max_tokens": 32})).await;
        let rule = report["rule"].as_str().unwrap().to_owned();
        if rules.last() != Some(&rule) {
            rules.push(rule.clone());
        }
        if rule == "verify" && report["unverified"].is_null() {
            let (expected, _) = server.ask("plain", PROMPTS[1], json!({"max_tokens": 32})).await;
            assert_eq!(text, expected, "unverified tokens are still accepted");
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{rules:?}: {}", server.log_text());
    }
    assert_eq!(rules, ["majority", "strict", "verify"]);
    assert!(server.log_text().contains("the rule of the consensus changed"), "{}", server.log_text());
    assert!(report["agreement"].is_null() || report["agreement"].as_f64() < Some(0.9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_do_not_mix() {
    let _permit = one_core();
    let nodes = start_small_nodes();
    let server = Server::start(&script(&small_model(), &lua_nodes(&urls(&nodes)), ", min_agreement = 0.0"));
    let ask = |model: &'static str, index: usize| {
        let server = &server;
        async move { server.ask(model, PROMPTS[index], json!({"temperature": 0.8, "top_p": 0.95})).await.0 }
    };
    let mut expected_answers = Vec::new();
    for index in 0..4 {
        expected_answers.push(ask("plain", index).await);
    }
    assert_eq!(join_all((0..4).map(|index| ask("tree", index))).await, expected_answers);
    let texts = join_all((0..4).map(|index| ask("strict", index))).await;
    assert!(texts.iter().all(|text| !text.is_empty()));
}
