//! The table `tw`.

use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, Lua, Table};

use crate::api::arg::Arguments;
use crate::api::function_builder::FunctionBuilder;
use crate::api::nodes::NodeTable;
use crate::api::{FUNCTIONS, consensus, gate, log, model, nodes, pooling, speculation, stack, text};
use crate::factory::Factory;
use crate::source::{Purpose, Source};

/// Wraps each function: it takes a table, and raises its error at the line of the script that called it. A tail call
/// would lose that line.
const PRELUDE: &str = r#"
local tw, raw, location, close_arguments = ...
for name, f in pairs(raw) do
  tw[name] = function(options)
    local at = location(2)
    if type(options) ~= "table" then
      error(at .. "tw." .. name .. " takes a table, as in tw." .. name .. "{ ... }", 0)
    end
    local refusal = name ~= "arg" and close_arguments()
    if refusal then error(at .. refusal, 0) end
    local value, err = f(options)
    if err then error(at .. err, 0) end
    return value
  end
end
"#;

/// Makes `tw` for a script.
pub(crate) fn table(lua: &Lua, source: &Arc<Source>) -> mlua::Result<Table> {
    let tw = lua.create_table()?;
    tw.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    tw.raw_set("log", log::table(lua)?)?;
    let (raw, listing) = match &source.purpose {
        Purpose::Serve(factory) => (functions(lua, source, factory)?, None),
        Purpose::ListArguments(listing) => (stubs(lua)?, Some(listing.clone())),
    };
    let arguments = Rc::new(Arguments::new(&source.arguments, listing));
    raw.raw_set("arg", arg(lua, &arguments)?)?;
    let close_arguments =
        lua.create_function(move |_, ()| Ok(arguments.close().err().map(|error| error.to_string())))?;
    let script = source.display_name.clone();
    let location = lua.create_function(move |lua, level: usize| Ok(location(lua, &script, level + 1)))?;
    let prelude = lua.load(PRELUDE).set_name("=tightwad");
    prelude.call::<()>((tw.clone(), raw, location, close_arguments))?;
    Ok(tw)
}

/// `tw.arg`.
fn arg(lua: &Lua, arguments: &Rc<Arguments>) -> mlua::Result<Function> {
    let arguments = arguments.clone();
    lua.create_function(move |lua, table: Table| {
        Ok(match arguments.declare(lua, &table) {
            Ok(values) => (Some(values), None),
            Err(error) => (None, Some(error.to_string())),
        })
    })
}

/// The functions that make values.
fn functions(lua: &Lua, source: &Arc<Source>, factory: &Arc<dyn Factory>) -> mlua::Result<Table> {
    let raw = lua.create_table()?;
    let builder = FunctionBuilder { lua, source, factory, calls: Rc::default() };
    let set = |name: &str, function: mlua::Result<Function>| raw.raw_set(name, function?);
    set("model", builder.backend("model", model::model, |f, spec| async move { f.model(spec).await }))?;
    set("lookup", builder.backend("lookup", model::lookup, |f, spec| async move { f.lookup(spec).await }))?;
    set("heads", builder.backend("heads", stack::heads, |_, heads| async move { Ok(heads) }))?;
    set("node", builder.backend("node", nodes::node, |f, spec| async move { f.node(spec).await }))?;
    set(
        "pooling",
        builder.backend("pooling", pooling::pooling, |f, spec| async move { f.pooling(spec).await }),
    )?;
    for (name, read) in text::SERVERS {
        set(name, builder.backend(name, read, |f, spec| async move { f.text_server(spec).await }))?;
    }
    set(
        "speculation",
        builder.backend("speculation", speculation::spec, |f, spec| async move { f.speculation(spec).await }),
    )?;
    set(
        "consensus",
        builder.backend("consensus", consensus::spec, |f, spec| async move { f.consensus(spec).await }),
    )?;
    set("gate", builder.backend("gate", gate::spec, |f, spec| async move { f.gate(spec).await }))?;
    let discover = builder.value(
        "discover",
        nodes::discovery_time,
        |f, time| async move { f.discover(time).await },
        |nodes| nodes.into_iter().map(NodeTable).collect::<Vec<_>>(),
    );
    set("discover", discover)?;
    set("serve", builder.serve())?;
    Ok(raw)
}

/// Functions that are never called: a script whose arguments are listed stops before.
fn stubs(lua: &Lua) -> mlua::Result<Table> {
    let raw = lua.create_table()?;
    for schema in FUNCTIONS {
        let stub = lua.create_function(|_, _: Table| Ok(()))?;
        raw.raw_set(schema.name.trim_start_matches("tw."), stub)?;
    }
    Ok(raw)
}

/// `file:line: ` of a level of the stack. A tail call has no level, so the result is `script: `.
fn location(lua: &Lua, script: &str, level: usize) -> String {
    // The calling Rust function is a level too, and the caller does not count it.
    let caller = lua.inspect_stack(level - 1, |debug| {
        let source = debug.source().short_src.map(|source| source.to_string());
        source.zip(debug.current_line())
    });
    caller.flatten().map_or_else(|| format!("{script}: "), |(source, line)| format!("{source}:{line}: "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use crate::fake_factory::FakeFactory;
    use crate::loader::{Script, load_text};

    async fn load(text: &str) -> Result<Script, String> {
        let arguments = [("name".to_owned(), "given".to_owned())];
        let text = format!(
            "local tw = require \"tightwad\"; local args = tw.arg {{ name = {{ type = \"string\" }} }}\n{text}"
        );
        let script =
            load_text("s.lua", text.into_bytes(), Path::new("."), Arc::new(FakeFactory), &arguments).await;
        script.map_err(|error| error.to_string())
    }

    /// Checks the errors of Lua expressions. `m` is a model and `l` is a lookup drafter.
    async fn check_errors(cases: &[(&str, &str)]) {
        for (line, expected) in cases {
            // The user's own line is line 3.
            let text =
                format!("local m, l = tw.model{{ path = \"m.gguf\" }}, tw.lookup{{}}\nlocal _ = {line}");
            let error = load(&text).await.err();
            assert_eq!(error.as_deref(), Some(format!("s.lua:3: {expected}").as_str()), "{line}");
        }
    }

    #[tokio::test]
    async fn factory_error_has_users_line() {
        check_errors(&[("tw.model{ path = 'gone.gguf' }", "cannot read gone.gguf")]).await;
    }

    #[tokio::test]
    async fn function_takes_a_table() {
        check_errors(&[("tw.model(3)", "tw.model takes a table, as in tw.model{ ... }")]).await;
    }

    #[tokio::test]
    async fn address_errors_have_users_line() {
        check_errors(&[
            (
                "tw.node{ url = 'x' }",
                "'url' must begin with tightwad://, http:// or https://, not 'x', as in \"tightwad://192.168.1.20:7710\"",
            ),
            (
                "tw.node{ url = 'http://user:secret@x' }",
                "'url' must not have a user name or a password before 'x': set a token or an API key instead, as in \"tightwad://192.168.1.20:7710\"",
            ),
            (
                "tw.openai{ url = 'http://x?key=secret' }",
                "'url' must end after 'http://x', without '?' and '#', as in \"https://api.example.com\"",
            ),
            (
                "tw.openai{ url = 'http://x', first_token_timeout = 0 }",
                "'first_token_timeout' in tw.openai must be from 1 to 86400 seconds",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn model_errors_have_users_line() {
        check_errors(&[
            ("tw.model{}", "tw.model needs 'path': a string, the GGUF file; or 'swarm'"),
            ("tw.model{ path = 'a', peers = {} }", "'peers' and 'token' in tw.model need 'swarm'"),
            ("tw.model{ path = 'a', queue = 3 }", "unknown key 'queue' in tw.model; it has path, name, context, slots, max_queue, threads, gpu_layers, template, swarm, peers, token, insecure"),
            ("tw.lookup{ min_match_tokens = 0 }", "'min_match_tokens' in tw.lookup must be from 1 to 32"),
            (
                "tw.node{ url = 'http://x', wait_timeout = -1 }",
                "'wait_timeout' in tw.node must be from 0 to 3600 seconds",
            ),
            (
                "tw.node{ url = 'http://x', fallback = 5 }",
                "'fallback' in tw.node must be a backend or a list of backends, not the number 5",
            ),
            ("tw.discover{ seconds = 0 }", "'seconds' in tw.discover must be from 0.1 to 60"),
            ("tw.openai{}", "tw.openai needs 'url': a string, as in \"https://api.example.com\""),
            (
                "tw.ollama{ url = 'http://x', verify = 'logprobs' }",
                "'verify' in tw.ollama can be \"replay\", not 'logprobs'",
            ),
            (
                "tw.openai{ url = 'http://x', verify = 'logprobs' }",
                "verify = \"logprobs\" in tw.openai needs 'tokenizer': a GGUF file of the same model",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn pooling_errors_have_users_line() {
        check_errors(&[
            (
                "tw.pooling{ model = 'm', include_host = false }",
                "tw.pooling has no workers, and 'include_host' is false: no machine can hold the layers",
            ),
            ("tw.pooling{ model = 'm', slots = 0 }", "'slots' in tw.pooling must be at least 1"),
            (
                "tw.pooling{ model = 'm', load = 'now' }",
                "'load' in tw.pooling must be \"startup\" or \"on_demand\", not 'now'",
            ),
            (
                "tw.pooling{ model = 'm', idle_timeout = -1 }",
                "'idle_timeout' in tw.pooling must be from 0 to 604800 seconds (a week)",
            ),
            (
                "tw.pooling{ model = 'm', policy_sha256 = ('0'):rep(64) }",
                "'policy_sha256' in tw.pooling needs 'policy'",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn speculation_errors_have_users_line() {
        check_errors(&[
            (
                "tw.heads{ target = m }",
                "'model' has no draft heads: its file has no MTP layers. Use tw.lookup{}, or a smaller model of the same family",
            ),
            (
                "tw.speculation{ target = m, draft = l }",
                "unknown key 'draft' in tw.speculation; it has target, drafters, max_draft_tokens, overlap, tree, translate, driver, driver_sha256, settings",
            ),
            (
                "tw.speculation{ target = m, drafters = {} }",
                "'drafters' in tw.speculation is empty; tw.lookup{} needs no model",
            ),
            (
                "tw.speculation{ target = m, drafters = l, max_draft_tokens = 65 }",
                "'max_draft_tokens' in tw.speculation must be from 1 to 64",
            ),
            (
                "tw.speculation{ target = m, drafters = l, driver_sha256 = 'x' }",
                "'driver_sha256' in tw.speculation must be 64 hexadecimal digits, not 'x'",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn consensus_and_gate_errors_have_users_line() {
        check_errors(&[
            (
                "tw.consensus{ target = m, drafters = l, rule = 'x' }",
                "'rule' in tw.consensus can be strict, majority, any_disagree, hedge, not 'x'",
            ),
            (
                "tw.consensus{ target = m, drafters = l, quorum = 2 }",
                "'quorum' in tw.consensus must be from 1 to 1",
            ),
            (
                "tw.consensus{ target = m, drafters = l, on_policy_failure = 'error' }",
                "'on_policy_failure' in tw.consensus needs 'policy'",
            ),
            (
                "tw.gate{ fleet = {}, reviewer = m }",
                "'fleet' in tw.gate must be a backend or a list of backends",
            ),
            ("tw.gate{ fleet = l, reviewer = m }", "'lookup' cannot answer requests: it only drafts"),
            (
                "tw.gate{ fleet = m, reviewer = m, judge_prompt = 'x' }",
                "'judge_prompt' in tw.gate must contain {answer}, which stands for the answer",
            ),
            (
                "tw.gate{ fleet = m, reviewer = m, cache = { max_entries = 0 } }",
                "'max_entries' in cache of tw.gate must be from 1 to 1000000",
            ),
            (
                "tw.gate{ fleet = m, reviewer = m, on_reviewer_lost = 'pass' }",
                "'on_reviewer_lost' in tw.gate can be \"error\" or \"pass_unreviewed\", not 'pass'",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn serve_errors_have_users_line() {
        check_errors(&[
            ("tw.serve{ models = {} }", "'models' in tw.serve is empty"),
            ("tw.serve{ models = { a = l } }", "the model 'a' cannot answer requests: it only drafts"),
            (
                "tw.serve{ models = { a = 5 } }",
                "the model 'a' must be a backend or a function, not the number 5",
            ),
            (
                "tw.serve{ models = { m } }",
                "'models' in tw.serve has names as keys, as in { [\"big\"] = backend }",
            ),
            (
                "tw.serve{ models = { m = m }, hosts = { 'box.lan:80' } }",
                "in tw.serve: 'box.lan:80' is not a host name such as \"box.lan\". Write it without scheme, port and path.",
            ),
            (
                "tw.serve{ models = { m = m }, origins = { '*' } }",
                "in tw.serve: '*' is not a web origin such as \"http://localhost:5173\". Write scheme, host and port only.",
            ),
            (
                "tw.serve{ models = { m = m }, origins = 'http://a' }",
                "'origins' in tw.serve must be a list of strings, not the string 'http://a'",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn script_serves_backends_and_functions() {
        let text = "return tw.serve{ listen = args.name, models = { b = function() end, a = tw.model{ path = 'm' } } }";
        let script = load(text).await.unwrap();
        let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, script.listen.as_deref()), (vec!["a", "b"], Some("given")));
        assert_eq!(script.models[0].1.name(), "model");
        let error = load("return 5").await.err().unwrap();
        assert_eq!(error, "s.lua: the script must end with `return tw.serve{ ... }`");
    }
}
