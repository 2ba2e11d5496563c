//! Templates in helper processes, which can hang and crash.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tightwad_chat::{ChatError, Conversation, Template, enable_helpers, run_helper};
use tightwad_core::ChatOptions;

/// Makes the test `child` a helper.
const CHILD_VARIABLE: &str = "TIGHTWAD_TEST_CHILD";

/// Not a test: the helper process.
#[test]
fn child() {
    if std::env::var_os(CHILD_VARIABLE).is_some() {
        assert_eq!(run_helper(), 0);
    }
}

fn prepare() {
    let program = std::env::current_exe().unwrap().into_os_string();
    let variable = format!("{CHILD_VARIABLE}=1");
    let mut command = vec!["env".into(), variable.into(), program];
    command.extend(["child", "--exact", "--nocapture"].map(Into::into));
    enable_helpers(command);
}

fn template(source: &str) -> Template {
    Template { source: source.to_owned(), tool_source: None, bos: "<s>".to_owned(), eos: "</s>".to_owned() }
}

fn render(source: &str) -> Result<String, ChatError> {
    let messages = json!([{"role": "user", "content": "hello"}]);
    let options = ChatOptions::default();
    let conversation =
        Conversation { messages: &messages, tools: &Value::Null, options: &options, max_bytes: 1 << 20 };
    template(source).render(&conversation)
}

const GOOD: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
/// Ends its analysis, but not the rendering of a conversation with "hello".
const ENDLESS: &str = "{% for m in messages %}{{ m.content }}{% if m.content == 'hello' %}{% for a in range(3000) %}{% for b in range(3000) %}{% for c in range(3000) %}{% set d = a + b %}{% endfor %}{% endfor %}{% endfor %}{% endif %}{% endfor %}";
const LONG: &str = "{% for m in messages %}{{ m.content }}{% if m.content == 'hello' %}{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}{% for a in range(40) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}{% endif %}{% endfor %}";

#[test]
fn endless_template_fails_while_others_are_rendered() {
    prepare();
    let endless = thread::spawn(|| render(ENDLESS));
    let start = Instant::now();
    let mut rendered = 0;
    while !endless.is_finished() {
        assert_eq!(render(GOOD).unwrap(), "[user]hello[assistant]");
        rendered += 1;
        thread::park_timeout(Duration::from_millis(20));
    }
    let failure = endless.join().unwrap();
    assert!(matches!(failure, Err(ChatError::TooSlow { .. })), "{failure:?}");
    assert!(rendered > 5, "{rendered} other renderings in {:?}", start.elapsed());
}

#[test]
fn crash_and_excess_of_memory_fail_one_rendering() {
    prepare();
    // The parser recurses.
    let crash = render(&format!("{{{{ {}", "(".repeat(2_000_000)));
    // A slow machine reaches the limit of time first.
    assert!(matches!(crash, Err(ChatError::Crashed(_) | ChatError::TooSlow { .. })), "{crash:?}");
    let long = render(LONG);
    assert!(long.is_err(), "{:?}", long.map(|text| text.len()));
    assert_eq!(render(GOOD).unwrap(), "[user]hello[assistant]");
}

#[test]
fn faults_of_templates_have_reasons() {
    prepare();
    let broken = template("a\n{% if %}").inspect();
    assert!(matches!(&broken, Err(ChatError::Broken(reason)) if !reason.is_empty()), "{broken:?}");
    let refused = render(
        "{% for m in messages %}{% if m.content == 'hello' %}{{ raise_exception('only robots') }}{% endif %}{{ m.content }}{% endfor %}",
    );
    assert_eq!(refused, Err(ChatError::Refused("only robots".to_owned())));
    // A division by zero ends the process.
    let zero = render("{{ (4 is divisibleby 0) }}");
    assert!(zero.is_err(), "{zero:?}");
    assert_eq!(render(GOOD).unwrap(), "[user]hello[assistant]");
}
