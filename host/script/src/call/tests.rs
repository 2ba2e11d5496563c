use std::sync::Arc;
use std::time::Duration;

use tightwad_core::testing::Events;
use tightwad_core::{Message, Prompt, Request};
use tokio::sync::mpsc;

use super::*;
use crate::fake_factory::{FakeBackend, Roles};
use crate::handle::BackendHandle;
use crate::sandbox;

const MAX_SLICE_TIME: Duration = Duration::from_millis(30);

/// A state with the backends `m`, which answers immediately, `late`, which answers after more than a slice, and
/// `drafts`, which cannot answer.
fn state(max_slice: Duration) -> (Lua, Limits) {
    let (lua, limits) = sandbox::state(Arc::default()).unwrap();
    let globals = lua.globals();
    globals.set("m", BackendHandle(FakeBackend::shared("m", Roles::Generator))).unwrap();
    globals.set("drafts", BackendHandle(FakeBackend::shared("drafts", Roles::Drafter))).unwrap();
    let delay = max_slice + Duration::from_millis(10);
    let late = FakeBackend { name: "late".to_owned(), roles: Roles::Generator, delay };
    globals.set("late", BackendHandle(Arc::new(late))).unwrap();
    (lua, limits.with_max_slice(max_slice))
}

/// Calls the function with `prompt` in a state. Returns the client's text and the outcome.
async fn call_in(
    (lua, limits): &(Lua, Limits),
    function: &str,
    prompt: Prompt,
) -> (String, Result<Outcome, BackendError>) {
    let chunk = format!("return function(request) {function} end");
    let function: Function = lua.load(chunk).set_name("=s.lua").eval().unwrap();
    let (sink, mut events) = mpsc::channel(16);
    let request = ActiveRequest::new("p", Request { prompt, ..Request::default() }, sink);
    let outcome = call_function(CallId::new("p", 1), lua, &function, limits, request).await;
    let mut text = String::new();
    while let Ok(event) = events.try_recv() {
        text.push_str(&event.text);
    }
    (text, outcome)
}

/// Calls the function with `prompt` in a new state.
async fn call(function: &str, prompt: &str) -> (String, Result<Outcome, BackendError>) {
    call_in(&state(MAX_SLICE_TIME), function, Prompt::Text(prompt.into())).await
}

/// The error of the function.
async fn error(function: &str) -> String {
    // Debug builds need time for the deep recursions.
    let state = state(Duration::from_secs(20));
    let (_, outcome) = call_in(&state, function, Prompt::Text("hi".into())).await;
    outcome.expect_err(function).to_string()
}

#[tokio::test]
async fn returned_string_is_inexact_answer() {
    let (text, outcome) = call("return 'you said ' .. request.prompt", "hi").await;
    let outcome = outcome.unwrap();
    assert_eq!(text, "you said hi");
    assert_eq!((outcome.report.mode.as_str(), outcome.report.exact), ("pipeline", false));
}

#[tokio::test]
async fn generated_answer_is_streamed_and_counted() {
    let (text, outcome) = call("m:generate(request)", "hi").await;
    let outcome = outcome.unwrap();
    assert_eq!(text, "m: hi");
    assert_eq!((outcome.report.mode.as_str(), outcome.report.exact), ("pipeline/plain", true));
    assert_eq!((outcome.usage.prompt_tokens, outcome.usage.completion_tokens), (3, 2));
}

#[tokio::test]
async fn completion_is_counted_but_not_streamed() {
    let function = "local a = m:complete(request, { prompt = 'draft' }); return a.text .. '!'";
    let (text, outcome) = call(function, "hi").await;
    assert_eq!(text, "m: draft!");
    assert_eq!(outcome.unwrap().usage.completion_tokens, 2);
}

#[tokio::test]
async fn function_error_is_backend_error() {
    let failed = async |function: &str, prompt: &str| call(function, prompt).await.1.unwrap_err().to_string();
    assert_eq!(failed("error('no luck', 0)", "hi").await, "p failed: no luck");
    assert_eq!(failed("return nil, 'not today'", "hi").await, "p failed: not today");
    assert_eq!(failed("return request.nothing.at_all", "hi").await.split(": ").next(), Some("p failed"));
    assert_eq!(
        failed("return drafts:generate(request)", "hi").await,
        "p failed: 'drafts' cannot answer requests: it only drafts"
    );
    let wrong = failed("return m:generate(request, { max_tokns = 1 })", "hi").await;
    assert_eq!(
        wrong,
        "p failed: unknown key 'max_tokns' in the changes of a request; did you mean 'max_tokens'?"
    );
}

#[tokio::test]
async fn script_can_handle_or_return_backend_error() {
    let (text, outcome) = call("return m:generate(request) or 'sorry'", "please fail").await;
    assert_eq!((text.as_str(), outcome.is_ok()), ("sorry", true));
    let (text, outcome) = call("return m:generate(request)", "please fail").await;
    assert_eq!((text.as_str(), outcome.unwrap_err().to_string().as_str()), ("", "m failed: it broke"));
}

#[tokio::test]
async fn endless_function_is_stopped() {
    for function in [
        "while true do end",
        "while true do pcall(error) end",
        "repeat local ok = pcall(string.rep, 'x', 10) until false",
    ] {
        let (_, outcome) = call(function, "hi").await;
        let error = outcome.unwrap_err().to_string();
        assert!(
            error.starts_with("p failed: ") && error.ends_with("without waiting for the host"),
            "{function}: {error}"
        );
    }
}

#[tokio::test]
async fn time_limit_excludes_waiting_for_backend() {
    let (text, outcome) = call("late:generate(request); return late:complete(request).text", "hi").await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(text, "late: hilate: hi");
}

#[tokio::test]
async fn disconnected_client_cancels_call() {
    let (lua, limits) = state(MAX_SLICE_TIME);
    let function: Function =
        lua.load("return function(request) return m:generate(request) end").eval().unwrap();
    let (sink, events) = Events::new();
    drop(events);
    let request = ActiveRequest::new("p", Request::default(), sink);
    let outcome = call_function(CallId::new("p", 1), &lua, &function, &limits, request).await;
    assert!(matches!(outcome, Err(BackendError::Cancelled)), "{outcome:?}");
}

#[tokio::test]
async fn error_that_is_not_a_string_gets_one_sentence() {
    let advice = "Raise a string, as in error(\"no model is free\")";
    for (function, kind) in [
        ("error({})", "a table"),
        ("error({ code = 5 })", "a table"),
        ("error(nil)", "nil"),
        ("error()", "nil"),
        ("error(print)", "a function"),
        ("error(coroutine.create(print))", "a thread"),
        ("error(m)", "a value"),
        ("error(request)", "a value"),
    ] {
        let expected = format!("p failed: the script raised {kind} as its error. {advice}");
        assert_eq!(error(function).await, expected, "{function}");
    }
    assert_eq!(error("error(5, 0)").await, "p failed: 5");
    let named = "error(setmetatable({}, { __tostring = function() return 'quota' end }))";
    assert_eq!(error(named).await, "p failed: quota");
    let broken = error("error(setmetatable({}, { __tostring = function() error('x') end }))").await;
    assert!(broken.starts_with("p failed: s.lua:1: x"), "{broken}");
    let long = error("error(('x'):rep(1000000))").await;
    assert!(long.len() < 2100, "{}", long.len());
    assert_eq!(error("error('a\\27[31mb', 0)").await, "p failed: a\\u{1b}[31mb");
}

#[tokio::test]
async fn wrong_return_value_gets_one_sentence() {
    for (function, expected) in [
        ("return 42", "the function returned a integer. Return a string"),
        ("return true", "the function returned a boolean"),
        ("return print", "the function returned a function"),
        ("return coroutine.create(print)", "the function returned a thread"),
        ("return m", "the function returned a userdata"),
        ("return request", "the function returned a userdata"),
        ("return {}", "the function returned a table"),
        ("return nil, {}", "the function returned nil and a table. Return a string as the reason"),
        ("return nil, setmetatable({}, { __tostring = error })", "the function returned nil and a table"),
        ("return", "the function sent nothing and returned nothing"),
        ("m:complete(request)", "the function sent nothing and returned nothing"),
        ("return m:complete(request)", "the function returned an answer of `complete`"),
    ] {
        let error = error(function).await;
        assert!(error.starts_with(&format!("p failed: {expected}")), "{function}: {error}");
    }
    let (text, outcome) = call("return ('aXb'):gsub('X', '-')", "hi").await;
    assert_eq!((text.as_str(), outcome.is_ok()), ("a-b", true), "further values are ignored");
    let (text, outcome) = call("return ''", "hi").await;
    assert_eq!((text.as_str(), outcome.is_ok()), ("", true), "an empty answer is an answer");
    let (_, outcome) = call("m:generate(request)", "please fail").await;
    assert_eq!(outcome.unwrap_err().to_string(), "m failed: it broke", "a forgotten error is not lost");
}

#[tokio::test]
async fn wrong_argument_gets_one_sentence_with_its_line() {
    for (function, expected) in [
        (
            "local _ = m:generate(request, { max_tokns = 1 })",
            "unknown key 'max_tokns' in the changes of a request; did you mean 'max_tokens'?",
        ),
        ("m:generate()", "generate takes the request first, as in model:generate(req), not nil"),
        (
            "m:complete('hi')",
            "complete takes the request first, as in model:complete(req), not the string 'hi'",
        ),
        (
            "m:generate(m)",
            "generate takes the request first, as in model:generate(req), not a backend or a request",
        ),
        (
            "m:generate(request, 'hi')",
            "generate takes a table of changes after the request, as in model:generate(req), not the string 'hi'",
        ),
        ("request:emit({})", "emit takes a string, not a table"),
        ("request:emit()", "emit takes a string, not nil"),
        (
            "request.prompt = 'x'",
            "'prompt' of a request cannot be set. Pass a changed value to the backend, as in model:generate(req, { prompt = ... })",
        ),
    ] {
        assert_eq!(error(function).await, format!("p failed: s.lua:1: {expected}"), "{function}");
    }
}

#[tokio::test]
async fn request_cannot_be_used_after_its_function_returned() {
    let state = state(MAX_SLICE_TIME);
    let hi = || Prompt::Text("hi".into());
    assert!(call_in(&state, "kept = request; return 'ok'", hi()).await.1.is_ok());
    for function in ["kept:emit('x')", "m:generate(kept)", "return kept.prompt"] {
        let error = call_in(&state, function, hi()).await.1.unwrap_err().to_string();
        let expected = "p failed: s.lua:1: the request has ended. Use `req` only before its function returns";
        assert_eq!(error, expected, "{function}");
    }
}

#[tokio::test]
async fn ended_request_frees_the_sink_of_its_client() {
    let (lua, limits) = state(MAX_SLICE_TIME);
    let function: Function =
        lua.load("return function(request) kept = request return 'ok' end").eval().unwrap();
    let (sink, mut events) = mpsc::channel(16);
    let request = ActiveRequest::new("p", Request::default(), sink);
    call_function(CallId::new("p", 1), &lua, &function, &limits, request).await.unwrap();
    assert_eq!(events.recv().await.map(|event| event.text).as_deref(), Some("ok"));
    assert!(events.recv().await.is_none(), "the script keeps the sink open");
}

#[tokio::test]
async fn host_functions_work_in_coroutines() {
    for function in [
        "local co = coroutine.create(function() return late:complete(request).text end)
         local ok, text = coroutine.resume(co) return text",
        "return coroutine.wrap(function() return late:complete(request).text end)()",
        "local inner = coroutine.wrap(function() return late:complete(request).text end)
         return coroutine.wrap(function() return inner() end)()",
    ] {
        let (text, outcome) = call(function, "hi").await;
        assert_eq!((text.as_str(), outcome.is_ok()), ("late: hi", true), "{function}: {outcome:?}");
    }
    let (text, _) = call(
        "local next = coroutine.wrap(function() coroutine.yield('a') coroutine.yield('b') end)
         return next() .. next()",
        "hi",
    )
    .await;
    assert_eq!(text, "ab");
    let raised = error("coroutine.wrap(function() error('inner', 0) end)()").await;
    assert_eq!(raised, "p failed: inner");
}

#[tokio::test]
async fn host_function_inside_a_c_function_gets_one_sentence() {
    for function in [
        "return (('a'):gsub('a', function() return m:complete(request).text end))",
        "table.sort({ 1, 2 }, function() return m:complete(request) end)",
    ] {
        let error = error(function).await;
        assert!(
            error.contains("was called inside a function of Lua's library, such as gsub or sort"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn hostile_code_ends_with_an_error() {
    for (function, expected) in [
        ("return ('%99999d'):format(1)", "invalid conversion"),
        ("return string.pack('i17', 1)", "out of limits [1,16]"),
        ("return (string.unpack('z', 'abc'))", "unfinished string"),
        (
            "local t = {} for i = 1, 100 do t[i] = i end table.sort(t, function() return true end)",
            "invalid order function",
        ),
        ("return utf8.char(-1)", "value out of range"),
        ("return tostring(utf8.codepoint('\\xff'))", "invalid UTF-8 code"),
        ("local function f() return 1 + f() end return f()", "stack overflow"),
        ("local function f() return (('a'):gsub('a', f)) end return f()", "C stack overflow"),
        ("local function f() return coroutine.wrap(f)() end return f()", "C stack overflow"),
        ("local t = setmetatable({}, { __tostring = function(t) print(t) end }) print(t)", "stack overflow"),
        ("local t = {} t.__index = t setmetatable(t, t) return t.x", "loop"),
        (
            "local t = setmetatable({}, { __index = function(t, k) return t[k] end }) return t.x",
            "C stack overflow",
        ),
        ("return load('return 1')()", "attempt to call a nil value (global 'load')"),
        ("return io.open('x')", "attempt to index a nil value (global 'io')"),
        ("return os.time()", "attempt to index a nil value (global 'os')"),
        ("return debug.traceback()", "attempt to index a nil value (global 'debug')"),
        ("collectgarbage('stop')", "attempt to call a nil value (global 'collectgarbage')"),
        ("return ('x'):rep(97 << 20)", "used more memory than its limit: 96 MB for one request"),
        ("return ('x'):rep(1 << 40)", "resulting string too large"),
        (
            "local t <close> = setmetatable({}, { __close = function() error('at close', 0) end }) return 'x'",
            "at close",
        ),
        ("for i = 1, 0, 0 do end", "'for' step is zero"),
    ] {
        let error = error(function).await;
        assert!(error.starts_with("p failed: ") && error.contains(expected), "{function}: {error}");
        assert!(!error.contains("stack traceback"), "{error}");
    }
}

#[tokio::test]
async fn text_cut_by_bytes_is_replaced_in_every_text() {
    for (function, text) in [
        ("request:emit(('é'):sub(1, 1)) return ''", "\u{fffd}"),
        ("return ('é'):sub(1, 1)", "\u{fffd}"),
        ("m:generate(request, { prompt = request.prompt:sub(1, 3) })", "m: Gr\u{fffd}"),
        ("print('\\xff') return 'ok'", "ok"),
    ] {
        let (received, outcome) = call(function, "Grüße").await;
        assert_eq!((received.as_str(), outcome.is_ok()), (text, true), "{function}: {outcome:?}");
    }
}

#[tokio::test]
async fn changed_messages_are_a_copy_of_the_request() {
    let message = [("role", "user"), ("content", "hi")].map(|(key, value)| (key.to_owned(), value.into()));
    let chat = || Prompt::Chat([Message(message.clone().into_iter().collect())].into());
    let state = state(MAX_SLICE_TIME);
    let function = "local messages = request.messages
        messages[1].content = 'changed'
        table.insert(messages, 1, { role = 'system', content = 'be brief' })
        return m:complete(request, { messages = messages }).text .. ' / ' .. request.messages[1].content";
    let (text, outcome) = call_in(&state, function, chat()).await;
    assert_eq!((text.as_str(), outcome.is_ok()), ("m: be brief\nchanged / hi", true), "{outcome:?}");
    let cyclic = "local messages = request.messages messages[1].x = messages
        return m:generate(request, { messages = messages })";
    let error = call_in(&state, cyclic, chat()).await.1.unwrap_err().to_string();
    assert!(error.contains("contains itself"), "{error}");
}
