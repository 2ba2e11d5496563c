//! Checks the key of each request, before its body is read.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tightwad_core::bearer_secret;
use tracing::{Instrument, Span};

use crate::keys::client::Client;
use crate::keys::refusal::Refusal;
use crate::keys::route_access::RouteAccess;
use crate::state::ServerState;

/// The header of Anthropic's clients.
const X_API_KEY: &str = "x-api-key";

/// The guard of one route.
#[derive(Clone)]
pub(crate) struct Guard {
    pub state: ServerState,
    pub access: RouteAccess,
}

/// Refuses requests whose key may not use the route. Other requests continue with their [`Client`] as an extension.
pub(crate) async fn authorize(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let client = match guard.state.keys.authenticate(secret(request.headers())) {
        Ok(client) => client,
        Err(refusal) => return guard.refuse("", refusal),
    };
    let mut response = match client.authorize(guard.access) {
        Ok(()) => {
            let span = guard.accept(&client);
            request.extensions_mut().insert(client.clone());
            next.run(request).instrument(span).await
        }
        Err(refusal) => guard.refuse(client.name().unwrap_or_default(), refusal),
    };
    client.insert_limits(response.headers_mut());
    response
}

impl Guard {
    /// Counts an accepted request. Returns the span of its log lines.
    fn accept(&self, client: &Client) -> Span {
        client.name().map_or_else(Span::none, |key| {
            self.state.metrics.keys().count_request(key);
            tracing::info_span!("client", key)
        })
    }

    fn refuse(&self, key: &str, refusal: Refusal) -> Response {
        self.state.metrics.keys().count_refusal(key, &refusal);
        tracing::debug!(key, reason = refusal.label(), "refused a request");
        refusal.into_response()
    }
}

/// The secret in a bearer token, or else in `x-api-key`.
fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| bearer_secret(value.as_bytes()));
    bearer.or_else(|| headers.get(X_API_KEY).map(|value| value.as_bytes().trim_ascii()))
}
