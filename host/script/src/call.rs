//! Calls a function of a script.

use mlua::{Function, Value};
use tightwad_core::{BackendError, Outcome};

use crate::error::message;
use crate::limits::{CallId, Limits};
use crate::request::RequestHandle;

/// Calls `function` on the thread of its Lua state.
pub(crate) async fn call_function(
    call: CallId,
    function: &Function,
    limits: &Limits,
    request: RequestHandle,
) -> Result<Outcome, BackendError> {
    let (name, record) = (call.model.clone(), request.record.clone());
    let called = async {
        let (value, reason) = function.call_async::<(Value, Value)>(request.clone()).await?;
        // The conversion to a string can also run Lua code.
        let reason = if reason.is_nil() { None } else { Some(reason.to_string()?) };
        Ok((value, reason))
    };
    match limits.run(call, called).await {
        Err(error) => {
            // A cancelled request is not a fault of the script, even if the script raises an error.
            return Err(match record.take_error() {
                Some(BackendError::Cancelled) => BackendError::Cancelled,
                _ => BackendError::failed(&name, message(&error)),
            });
        }
        // A backend's own error has a status for the client; the script's reason has none.
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
    use crate::handle::BackendHandle;
    use crate::sandbox;

    const MAX_SLICE_TIME: Duration = Duration::from_millis(30);

    /// Calls the function with `prompt`. Returns the client's text and the outcome. The backend `m` answers immediately,
    /// `late` answers after more than a slice, and `drafts` cannot answer.
    async fn call(function: &str, prompt: &str) -> (String, Result<Outcome, BackendError>) {
        let (lua, limits) = sandbox::state(Arc::default()).unwrap();
        let limits = limits.with_max_slice(MAX_SLICE_TIME);
        let globals = lua.globals();
        globals.set("m", BackendHandle(FakeBackend::shared("m", Roles::Generator))).unwrap();
        globals.set("drafts", BackendHandle(FakeBackend::shared("drafts", Roles::Drafter))).unwrap();
        let late = FakeBackend {
            name: "late".to_owned(),
            roles: Roles::Generator,
            delay: MAX_SLICE_TIME + Duration::from_millis(10),
        };
        globals.set("late", BackendHandle(Arc::new(late))).unwrap();
        let chunk = format!("return function(request) {function} end");
        let function: Function = lua.load(chunk).set_name("=s.lua").eval().unwrap();
        let (sink, mut events) = mpsc::channel(16);
        let request = Request { prompt: Prompt::Text(prompt.to_owned()), ..Request::default() };
        let handle = RequestHandle::new("p", request, sink);
        let outcome = call_function(CallId::new("p", 1), &function, &limits, handle).await;
        let mut text = String::new();
        while let Ok(event) = events.try_recv() {
            text.push_str(&event.text);
        }
        (text, outcome)
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
        let (lua, limits) = sandbox::state(Arc::default()).unwrap();
        lua.globals().set("m", BackendHandle(FakeBackend::shared("m", Roles::Generator))).unwrap();
        let function: Function =
            lua.load("return function(request) return m:generate(request) end").eval().unwrap();
        let (sink, events) = mpsc::channel(16);
        drop(events);
        let handle = RequestHandle::new("p", Request::default(), sink);
        let outcome = call_function(CallId::new("p", 1), &function, &limits, handle).await;
        assert!(matches!(outcome, Err(BackendError::Cancelled)), "{outcome:?}");
    }
}
