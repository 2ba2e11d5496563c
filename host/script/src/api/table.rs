//! The table `tw`.

use std::path::Path;
use std::sync::Arc;

use mlua::{Lua, Table};

use crate::api::makers::Makers;
use crate::api::nodes::FoundNode;
use crate::api::{consensus, gate, log, model, nodes, pooling, speculation, text};
use crate::factory::Factory;

/// Calls each function with the user's table, and raises what it refuses at the user's line. Tail
/// calls would lose that line.
const PRELUDE: &str = r#"
local tw, raw, where = ...
for name, f in pairs(raw) do
  tw[name] = function(spec)
    local at = where(2)
    if type(spec) ~= "table" then
      error(at .. "tw." .. name .. " takes a table, as in tw." .. name .. "{ ... }", 0)
    end
    local value, err = f(spec)
    if err then error(at .. err, 0) end
    return value
  end
end
"#;

/// Builds `tw` for the script that errors call `shown`.
pub(crate) fn table(
    lua: &Lua,
    shown: &str,
    folder: &Path,
    factory: &Arc<dyn Factory>,
    settings: &[(String, String)],
) -> mlua::Result<Table> {
    let tw = lua.create_table()?;
    tw.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    tw.raw_set("settings", lua.create_table_from(settings.iter().cloned())?)?;
    tw.raw_set("log", log::table(lua)?)?;
    let raw = lua.create_table()?;
    let makers = Makers { lua, folder, factory };
    raw.raw_set("model", makers.backend(model::model, |f, spec| async move { f.model(spec).await })?)?;
    raw.raw_set("lookup", makers.backend(model::lookup, |f, spec| async move { f.lookup(spec).await })?)?;
    raw.raw_set("node", makers.backend(nodes::node, |f, spec| async move { f.node(spec).await })?)?;
    let pool = makers.backend(pooling::pooling, |f, spec| async move { f.pooling(spec).await })?;
    raw.raw_set("pooling", pool)?;
    for (name, read) in text::SERVERS {
        raw.raw_set(name, makers.backend(read, |f, spec| async move { f.text_server(spec).await })?)?;
    }
    let speculate = makers.backend(speculation::spec, |f, spec| async move { f.speculation(spec).await })?;
    raw.raw_set("speculation", speculate)?;
    let agree = makers.backend(consensus::spec, |f, spec| async move { f.consensus(spec).await })?;
    raw.raw_set("consensus", agree)?;
    raw.raw_set("gate", makers.backend(gate::spec, |f, spec| async move { f.gate(spec).await })?)?;
    raw.raw_set(
        "discover",
        makers.value(nodes::discovery, |f, wait| async move {
            Ok(f.discover(wait).await?.into_iter().map(FoundNode).collect::<Vec<_>>())
        })?,
    )?;
    raw.raw_set("serve", makers.serve()?)?;
    let shown = shown.to_owned();
    let place = lua.create_function(move |lua, level: usize| Ok(place(lua, &shown, level + 1)))?;
    lua.load(PRELUDE).set_name("=tightwad").call::<()>((tw.clone(), raw, place))?;
    Ok(tw)
}

/// `file:line: ` of a level of the stack; the file alone for a tail call, which has no level of its own.
fn place(lua: &Lua, shown: &str, level: usize) -> String {
    // The function that asks is a level itself, which the caller's count leaves out.
    let at = lua.inspect_stack(level - 1, |debug| {
        let source = debug.source().short_src.map(|source| source.to_string());
        source.zip(debug.current_line())
    });
    at.flatten().map_or_else(|| format!("{shown}: "), |(source, line)| format!("{source}:{line}: "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use crate::fake_factory::FakeFactory;
    use crate::loader::{Script, load_text};

    async fn load(text: &str) -> Result<Script, String> {
        let settings = [("name".to_owned(), "set".to_owned())];
        let text = format!("local tw = require \"tightwad\"\n{text}").into_bytes();
        let script = load_text("s.lua", text, Path::new("."), Arc::new(FakeFactory), &settings).await;
        script.map_err(|error| error.to_string())
    }

    async fn refused(cases: &[(&str, &str)]) {
        for (line, expected) in cases {
            // Line 3: the user's own, whatever calls it.
            let text =
                format!("local m, l = tw.model{{ path = \"m.gguf\" }}, tw.lookup{{}}\nlocal _ = {line}");
            let error = load(&text).await.err();
            assert_eq!(error.as_deref(), Some(format!("s.lua:3: {expected}").as_str()), "{line}");
        }
    }

    #[tokio::test]
    async fn what_the_factory_refuses_is_said_at_the_users_line() {
        refused(&[("tw.model{ path = 'gone.gguf' }", "cannot read gone.gguf")]).await;
    }

    #[tokio::test]
    async fn a_function_takes_a_table() {
        refused(&[("tw.model(3)", "tw.model takes a table, as in tw.model{ ... }")]).await;
    }

    #[tokio::test]
    async fn makers_of_models_refuse_at_the_users_line() {
        refused(&[
            ("tw.model{}", "tw.model needs 'path': a string, the GGUF file; or 'swarm'"),
            ("tw.model{ path = 'a', peers = {} }", "'peers' and 'token' in tw.model go with 'swarm'"),
            ("tw.lookup{ min_match = 0 }", "'min_match' in tw.lookup must be from 1 to 32"),
            (
                "tw.node{ url = 'x' }",
                "'url' must begin with http://, as in \"http://192.168.1.20:7710\", not 'x'",
            ),
            (
                "tw.node{ url = 'http://x', patience = -1 }",
                "'patience' in tw.node must be from 0 to 3600 seconds",
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
            (
                "tw.pooling{ model = 'm', here = false }",
                "tw.pooling has no workers, and 'here' is false: there is nowhere to compute",
            ),
            ("tw.pooling{ model = 'm', slots = 0 }", "'slots' in tw.pooling must be at least 1"),
            (
                "tw.pooling{ model = 'm', load = 'now' }",
                "'load' in tw.pooling must be \"start\" or \"demand\", not 'now'",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn speculation_refuses_at_the_users_line() {
        refused(&[
            (
                "tw.speculation{ target = m }",
                "tw.speculation needs 'drafters': a drafter or a list of drafters",
            ),
            (
                "tw.speculation{ target = m, draft = l, drafters = l }",
                "'draft' and 'drafters' in tw.speculation are the same; give one",
            ),
            (
                "tw.speculation{ target = m, draft = {} }",
                "'draft' in tw.speculation is empty; tw.lookup{} is one that costs nothing",
            ),
            (
                "tw.speculation{ target = m, draft = l, max_draft = 65 }",
                "'max_draft' in tw.speculation must be from 1 to 64",
            ),
            (
                "tw.speculation{ target = m, draft = l, sha256 = 'x' }",
                "'sha256' in tw.speculation must be 64 hexadecimal digits, not 'x'",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn consensus_and_gate_refuse_at_the_users_line() {
        refused(&[
            (
                "tw.consensus{ target = m, draft = l, rule = 'x' }",
                "'rule' in tw.consensus can be strict, majority, any_disagree, hedge, not 'x'",
            ),
            (
                "tw.consensus{ target = m, draft = l, quorum = 2 }",
                "'quorum' in tw.consensus must be from 1 to 1",
            ),
            (
                "tw.consensus{ target = m, draft = l, on_failure = 'error' }",
                "'on_failure' in tw.consensus goes with 'plugin'",
            ),
            (
                "tw.gate{ fleet = {}, reviewer = m }",
                "'fleet' in tw.gate must be a backend or a list of backends",
            ),
            ("tw.gate{ fleet = l, reviewer = m }", "'lookup' cannot answer requests: it only drafts"),
            (
                "tw.gate{ fleet = m, reviewer = m, prompt = 'x' }",
                "'prompt' in tw.gate must contain {answer}, where the answer goes",
            ),
            (
                "tw.gate{ fleet = m, reviewer = m, cache = { entries = 0 } }",
                "'entries' in cache of tw.gate must be from 1 to 1000000",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn a_script_serves_backends_and_functions() {
        refused(&[
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
        ])
        .await;
        let text = "return tw.serve{ listen = tw.settings.name, models = { b = function() end, a = tw.model{ path = 'm' } } }";
        let script = load(text).await.unwrap();
        let names: Vec<&str> = script.models.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, script.listen.as_deref()), (vec!["a", "b"], Some("set")));
        assert_eq!(script.models[0].1.name(), "model");
        let error = load("return 5").await.err().unwrap();
        assert_eq!(error, "s.lua: the script must end with `return tw.serve{ ... }`");
    }
}
