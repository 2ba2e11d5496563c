//! One call of a function of a script.

use mlua::{Function, Value};
use tightwad_core::{BackendError, Outcome};

use crate::error::message;
use crate::limits::{CallId, Limits};
use crate::request::RequestHandle;

/// Calls `function`, on the thread of its state.
pub(crate) async fn answer(
    call: CallId,
    function: &Function,
    limits: &Limits,
    request: RequestHandle,
) -> Result<Outcome, BackendError> {
    let (name, record) = (call.model.clone(), request.record.clone());
    let called = async {
        let (value, reason) = function.call_async::<(Value, Value)>(request.clone()).await?;
        // May run Lua code, too.
        let reason = if reason.is_nil() { None } else { Some(reason.to_string()?) };
        Ok((value, reason))
    };
    match limits.run(call, called).await {
        Err(error) => {
            // What the client can mend comes before what the script made of it.
            return Err(match record.take_error() {
                Some(BackendError::Cancelled) => BackendError::Cancelled,
                _ => BackendError::failed(&name, message(&error)),
            });
        }
        Ok((Value::Nil, Some(reason))) => {
            return Err(record.take_error().unwrap_or_else(|| BackendError::failed(&name, reason)));
        }
        Ok((Value::String(text), _)) => request.emit(text.to_string_lossy()).await?,
        Ok(_) => {}
    }
    Ok(record.outcome())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tightwad_core::{Prompt, Request};
    use tokio::sync::mpsc;

    use super::*;
    use crate::fake_factory::{FakeBackend, Roles};
    use crate::handle::Handle;
    use crate::sandbox;

    const MAX_SLICE: Duration = Duration::from_millis(30);

    /// Calls the function with `prompt`: the text that the client sees, and the outcome. `m` answers at once, `late`
    /// after more than a slice, and `drafts` not at all.
    async fn call(function: &str, prompt: &str) -> (String, Result<Outcome, BackendError>) {
        let (lua, limits) = sandbox::state(Arc::default()).unwrap();
        let limits = limits.with_max_slice(MAX_SLICE);
        let globals = lua.globals();
        globals.set("m", Handle(FakeBackend::shared("m", Roles::Generator))).unwrap();
        globals.set("drafts", Handle(FakeBackend::shared("drafts", Roles::Drafter))).unwrap();
        let late = FakeBackend {
            name: "late".to_owned(),
            roles: Roles::Generator,
            delay: MAX_SLICE + Duration::from_millis(10),
        };
        globals.set("late", Handle(Arc::new(late))).unwrap();
        let chunk = format!("return function(request) {function} end");
        let function: Function = lua.load(chunk).set_name("=s.lua").eval().unwrap();
        let (sink, mut events) = mpsc::channel(16);
        let request = Request { prompt: Prompt::Text(prompt.to_owned()), ..Request::default() };
        let handle = RequestHandle::new("p", request, sink);
        let outcome = answer(CallId::new("p", 1), &function, &limits, handle).await;
        let mut text = String::new();
        while let Ok(event) = events.try_recv() {
            text.push_str(&event.text);
        }
        (text, outcome)
    }

    #[tokio::test]
    async fn a_string_is_the_answer_and_not_exact() {
        let (text, outcome) = call("return 'you said ' .. request.prompt", "hi").await;
        let outcome = outcome.unwrap();
        assert_eq!(text, "you said hi");
        assert_eq!((outcome.report.mode.as_str(), outcome.report.exact), ("pipeline", false));
    }

    #[tokio::test]
    async fn a_backends_answer_is_streamed_and_counted() {
        let (text, outcome) = call("m:generate(request)", "hi").await;
        let outcome = outcome.unwrap();
        assert_eq!(text, "m: hi");
        assert_eq!((outcome.report.mode.as_str(), outcome.report.exact), ("pipeline/plain", true));
        assert_eq!((outcome.usage.prompt_tokens, outcome.usage.completion_tokens), (3, 2));
    }

    #[tokio::test]
    async fn a_completion_is_not_shown_but_counted() {
        let function = "local a = m:complete(request, { prompt = 'draft' }); return a.text .. '!'";
        let (text, outcome) = call(function, "hi").await;
        assert_eq!(text, "m: draft!");
        assert_eq!(outcome.unwrap().usage.completion_tokens, 2);
    }

    #[tokio::test]
    async fn an_error_of_the_function_is_the_backends() {
        let failed =
            async |function: &str, prompt: &str| call(function, prompt).await.1.unwrap_err().to_string();
        assert_eq!(failed("error('no luck', 0)", "hi").await, "p failed: no luck");
        assert_eq!(failed("return nil, 'not today'", "hi").await, "p failed: not today");
        assert_eq!(failed("return request.nothing.at_all", "hi").await.split(": ").next(), Some("p failed"));
        assert_eq!(
            failed("return drafts:generate(request)", "hi").await,
            "p failed: 'drafts' cannot answer requests: it only drafts"
        );
        let wrong = failed("return m:generate(request, { max_tokns = 1 })", "hi").await;
        assert_eq!(wrong, "p failed: unknown key 'max_tokns' in generate; did you mean 'max_tokens'?");
    }

    #[tokio::test]
    async fn an_error_of_a_backend_can_be_mended_or_passed_on() {
        let (text, outcome) = call("return m:generate(request) or 'sorry'", "please fail").await;
        assert_eq!((text.as_str(), outcome.is_ok()), ("sorry", true));
        let (text, outcome) = call("return m:generate(request)", "please fail").await;
        assert_eq!((text.as_str(), outcome.unwrap_err().to_string().as_str()), ("", "m failed: it broke"));
    }

    #[tokio::test]
    async fn a_function_that_computes_too_long_is_ended() {
        for function in [
            "while true do end",
            "while true do pcall(error) end",
            "repeat local ok = pcall(string.rep, 'x', 10) until false",
        ] {
            let (_, outcome) = call(function, "hi").await;
            let error = outcome.unwrap_err().to_string();
            assert!(
                error.starts_with("p failed: ") && error.ends_with("without a pause"),
                "{function}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn waiting_for_a_backend_is_not_computing() {
        let (text, outcome) = call("late:generate(request); return late:complete(request).text", "hi").await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(text, "late: hilate: hi");
    }

    #[tokio::test]
    async fn a_client_that_left_cancels_the_call() {
        let (lua, limits) = sandbox::state(Arc::default()).unwrap();
        lua.globals().set("m", Handle(FakeBackend::shared("m", Roles::Generator))).unwrap();
        let function: Function =
            lua.load("return function(request) return m:generate(request) end").eval().unwrap();
        let (sink, events) = mpsc::channel(16);
        drop(events);
        let handle = RequestHandle::new("p", Request::default(), sink);
        let outcome = answer(CallId::new("p", 1), &function, &limits, handle).await;
        assert!(matches!(outcome, Err(BackendError::Cancelled)), "{outcome:?}");
    }
}
