//! Calls a function of a script.

use std::rc::Rc;

use mlua::{Function, Lua, Table, Value};
use tightwad_core::{BackendError, Outcome};

use crate::error::{message, traceback};
use crate::limits::{CallId, Limits, MAX_REQUEST_BYTES};
use crate::request::{ActiveRequest, RequestHandle, text_of};

/// Calls `function` in `lua`, on the thread of that state.
pub(crate) async fn call_function(
    call: CallId,
    lua: &Lua,
    function: &Function,
    limits: &Limits,
    request: ActiveRequest,
) -> Result<Outcome, BackendError> {
    let (name, request) = (call.model.clone(), Rc::new(request));
    let access = Access(RequestHandle::new(&request));
    let code = function.call_async::<(Value, Value)>(access.0.clone());
    let returned = limits.run(lua, call, MAX_REQUEST_BYTES, code).await;
    // Lua frees the handle later. The request must not live until then.
    drop(access);
    let failed = |reason: String| BackendError::failed(&name, reason);
    let (value, reason) = match returned {
        Ok(returned) => returned,
        Err(error) => {
            // A cancelled request is not a fault of the script, even if the script raises an error.
            if let Some(BackendError::Cancelled) = request.record.take_error() {
                return Err(BackendError::Cancelled);
            }
            let request = &request.request.id;
            tracing::warn!(
                model = &*name,
                request,
                "the function of the script failed: {}",
                traceback(&error)
            );
            return Err(failed(message(&error)));
        }
    };
    match answer_of(&value, &reason, &request) {
        Ok(Some(text)) => request.emit(text).await?,
        Ok(None) => {}
        // A backend's own error has a status for the client; the script's reason has none.
        Err(reason) => return Err(request.record.take_error().unwrap_or_else(|| failed(reason))),
    }
    Ok(request.record.outcome())
}

/// The script's access to a request. It ends with the call, also if the client disconnects.
struct Access(RequestHandle);

impl Drop for Access {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The text that the function returned for the client, or the reason of a failure.
fn answer_of(value: &Value, reason: &Value, request: &ActiveRequest) -> Result<Option<String>, String> {
    let is_empty = !request.record.has_answer();
    match (value, reason) {
        (Value::String(text), _) => Ok(Some(text.to_string_lossy())),
        (Value::Nil, Value::Nil) if is_empty => {
            Err("the function sent nothing and returned nothing. Return a string, \
             or call `generate` or `emit`"
                .to_owned())
        }
        (Value::Nil, Value::Nil) => Ok(None),
        (Value::Nil, reason) => Err(text_of(reason).unwrap_or_else(|| {
            let kind = reason.type_name();
            format!("the function returned nil and a {kind}. Return a string as the reason of a failure")
        })),
        (Value::Table(answer), _) if is_answer(answer) => match is_empty {
            false => Ok(None),
            true => Err(
                "the function returned an answer of `complete`, which the client has not received. Return \
                 its `text`, or call `generate`"
                    .to_owned(),
            ),
        },
        (other, _) => {
            let kind = other.type_name();
            Err(format!(
                "the function returned a {kind}. Return a string, the answer of `generate`, or nothing"
            ))
        }
    }
}

/// True for the answer of a backend.
fn is_answer(table: &Table) -> bool {
    table.raw_get::<Value>("text").is_ok_and(|text| text.is_string())
}

#[cfg(test)]
mod tests;
