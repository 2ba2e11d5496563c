//! Drafters race, and where they agree the target is not asked: labelled, audited, never stuck.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tightwad_netlab::Proxy;

use crate::support::{LIES, Liar, Node, PROMPTS, Server, share, small, small_at, smollm2, smollm2_at};

const RULES: [&str; 4] = ["strict", "majority", "any_disagree", "hedge"];

/// One thread each: processes that wait for each other on the same cores slow each other down.
const NODE: [&str; 4] = ["--context", "1024", "--threads", "1"];

/// `target` with `drafters` (Lua expressions) under every rule, and exactly with trees.
fn script(target: &Path, drafters: &str, more: &str) -> String {
    let rules = RULES.map(|rule| {
        format!(
            "{rule} = tw.consensus {{ target = target, drafters = drafters, rule = \"{rule}\", block = 6{more} }},\n"
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

/// Drafters that differ, each in a process of its own.
fn nodes(models: [PathBuf; 3]) -> Vec<Node> {
    models.map(|model| Node::start(&[("drafter", &model)], &NODE)).into()
}

/// SmolLM2 at two, three and eight bits: drafters of real text agree where a word is likely.
fn smollm2_fleet() -> Vec<Node> {
    nodes(["q2_k", "q3_k_m", "q8_0"].map(smollm2_at))
}

/// The small model at three, four and eight bits.
fn fleet() -> Vec<Node> {
    nodes(["q3_k_m", "q4_k_m", "q8_0"].map(small_at))
}

fn lua(urls: &[String]) -> String {
    let node = |(index, url): (usize, &String)| {
        format!("tw.node {{ url = \"{url}\", name = \"d{index}\", patience = 1 }}")
    };
    urls.iter().enumerate().map(node).collect::<Vec<_>>().join(", ")
}

fn urls(fleet: &[Node]) -> Vec<String> {
    fleet.iter().map(Node::url).collect()
}

/// What the mode of this rule is doing, from `/v1/tightwad/status`.
async fn status(server: &Server, rule: &str) -> Value {
    let (_, text) = server.get("/v1/tightwad/status").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    let modes = status["modes"].as_array().unwrap().clone();
    modes.into_iter().find(|mode| mode["rule"] == rule).unwrap_or(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_skips_the_target_and_says_so_and_trees_are_exact() {
    let _turn = share();
    let fleet = smollm2_fleet();
    let server = Server::start(&script(&smollm2(), &lua(&urls(&fleet)), ", audit = 1.0, floor = 0.0"));
    for temperature in [0.0, 0.8] {
        for prompt in &PROMPTS[..2] {
            let more = json!({"temperature": temperature, "top_p": 0.95, "max_tokens": 32});
            let (truth, _) = server.ask("plain", prompt, more.clone()).await;
            for model in ["exact", "tree", "calls"] {
                let (text, report) = server.ask(model, prompt, more.clone()).await;
                assert_eq!(text, truth, "{model}: {report}");
                assert_eq!(report["exact"], true, "{report}");
            }
            for rule in RULES {
                let (text, report) = server.ask(rule, prompt, more.clone()).await;
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
        "some verification was of a tree"
    );
    for rule in RULES {
        // Audits come after the answers.
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
            now["drafters"].as_array().unwrap().iter().all(|one| one["wins"].as_u64() > Some(0)),
            "{now}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_probabilities_and_constraints_are_the_target_s() {
    let _turn = share();
    let fleet = smollm2_fleet();
    let server = Server::start(&script(&smollm2(), &lua(&urls(&fleet)), ""));
    let asked = json!({"model": "majority", "messages": [{"role": "user", "content": PROMPTS[0]}],
        "max_tokens": 24, "temperature": 0, "logprobs": true});
    let (_, answer) = server.post("/v1/chat/completions", &asked).await;
    assert_eq!(answer["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 24, "{answer}");
    assert!(answer["tightwad"]["unverified"].is_null(), "{answer}");
    let mut plain = asked.clone();
    plain["model"] = json!("plain");
    let (_, truth) = server.post("/v1/chat/completions", &plain).await;
    assert_eq!(answer["choices"][0]["message"], truth["choices"][0]["message"]);

    let schema = json!({"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "people": {"type": "integer"}},
        "required": ["name", "people"], "additionalProperties": false}}});
    let (text, _) = server.ask("majority", "Name a city.", json!({"response_format": schema})).await;
    let city: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(city["name"].is_string() && city["people"].is_i64(), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liars_the_dead_and_the_slow_hold_nothing_up() {
    let _turn = share();
    let mut fleet = fleet();
    let slow = Proxy::start("127.0.0.1:0".parse().unwrap(), fleet[1].address).await.unwrap();
    let liar = Liar::start().await;
    let lie = format!("tw.openai {{ url = \"{}\", model = \"liar\", name = \"liar\" }}", liar.url);
    let honest = urls(&fleet);
    let through = vec![honest[0].clone(), format!("http://{}", slow.address()), honest[2].clone()];
    let more = json!({"max_tokens": 32});
    let all = async |server: &Server, what: &str| {
        let (truth, _) = server.ask("plain", PROMPTS[0], more.clone()).await;
        for model in ["exact", "tree"] {
            let (text, report) = server.ask(model, PROMPTS[0], more.clone()).await;
            assert_eq!(text, truth, "{what}, {model}: {report}");
            assert!(report["fallback"].is_null(), "{what}, {model}: a drafter is no reason to end: {report}");
        }
        for rule in RULES {
            let start = Instant::now();
            let (text, report) = server.ask(rule, PROMPTS[0], more.clone()).await;
            println!("{what}, {rule}: {:?}, {report}", start.elapsed());
            assert_eq!(report["exact"], false);
            assert!(!text.is_empty() && report["fallback"].is_null(), "{what}, {rule}: {report}");
            assert!(
                !LIES.iter().any(|word| text.contains(word)),
                "{what}, {rule}: one liar among honest ones: {text}"
            );
        }
    };

    let server = Server::start(&script(&small(), &format!("{}, {lie}", lua(&honest[..2])), ""));
    all(&server, "one liar").await;
    drop(server);

    let server = Server::start(&script(&small(), &lua(&through), ""));
    all(&server, "all well").await;
    slow.faults().delay(Duration::from_millis(700));
    all(&server, "one slow").await;
    slow.faults().delay(Duration::ZERO);
    fleet[2].kill();
    all(&server, "one dead").await;
    fleet[0].kill();
    fleet[1].kill();
    let (truth, _) = server.ask("plain", PROMPTS[0], more.clone()).await;
    for rule in RULES {
        let start = Instant::now();
        let (text, report) = server.ask(rule, PROMPTS[0], more.clone()).await;
        println!("all dead, {rule}: {:?}, {report}", start.elapsed());
        assert_eq!(text, truth, "only the target is left: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_lie_alike_audits_find_out_and_the_rule_gets_tighter() {
    let _turn = share();
    let liar = Liar::start().await;
    let lies: Vec<String> = (0..3)
        .map(|index| {
            format!("tw.openai {{ url = \"{}\", model = \"liar\", name = \"liar{index}\" }}", liar.url)
        })
        .collect();
    let server = Server::start(&script(&small(), &lies.join(", "), ", audit = 1.0"));
    let (text, report) = server.ask("majority", PROMPTS[0], json!({"max_tokens": 32})).await;
    assert!(LIES.iter().any(|word| text.contains(word)), "they agree: {text}");
    assert_eq!(report["exact"], false);
    assert!(report["unverified"].as_u64() > Some(0), "{report}");
    // Every lie is one token too many: some requests go by until there are enough of them.
    let start = Instant::now();
    let mut rules = Vec::new();
    loop {
        let (text, report) = server.ask("majority", PROMPTS[1], json!({"max_tokens": 32})).await;
        let rule = report["rule"].as_str().unwrap().to_owned();
        if rules.last() != Some(&rule) {
            rules.push(rule.clone());
        }
        if rule == "verify" && report["unverified"].is_null() {
            let (truth, _) = server.ask("plain", PROMPTS[1], json!({"max_tokens": 32})).await;
            assert_eq!(text, truth, "nothing is accepted any more");
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{rules:?}: {}", server.logged());
    }
    assert_eq!(rules, ["majority", "strict", "verify"]);
    assert!(server.logged().contains("another rule is at work"), "{}", server.logged());
    assert!(report["agreement"].is_null() || report["agreement"].as_f64() < Some(0.9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_at_once_do_not_meet() {
    let _turn = share();
    let fleet = fleet();
    let server = Server::start(&script(&small(), &lua(&urls(&fleet)), ", floor = 0.0"));
    let ask = |model: &'static str, index: usize| {
        let server = &server;
        async move { server.ask(model, PROMPTS[index], json!({"temperature": 0.8, "top_p": 0.95})).await.0 }
    };
    let mut truths = Vec::new();
    for index in 0..4 {
        truths.push(ask("plain", index).await);
    }
    assert_eq!(join_all((0..4).map(|index| ask("tree", index))).await, truths);
    let texts = join_all((0..4).map(|index| ask("strict", index))).await;
    assert!(texts.iter().all(|text| !text.is_empty()));
}
