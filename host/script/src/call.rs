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
