//! The client of a request.

use std::sync::Arc;

use axum::http::HeaderMap;

use crate::keys::key::Key;
use crate::keys::refusal::Refusal;
use crate::keys::route_access::RouteAccess;

/// The client of a request.
#[derive(Clone)]
pub(crate) enum Client {
    /// A client with the token, or any client of a server without credentials. It has all rights and no limits.
    Unrestricted,
    /// A client with a key.
    Key(Arc<Key>),
}

impl Client {
    /// The client's key.
    pub(crate) fn key(&self) -> Option<&Arc<Key>> {
        match self {
            Self::Unrestricted => None,
            Self::Key(key) => Some(key),
        }
    }

    /// The name of the key; `None`: the client has no key.
    pub(crate) fn name(&self) -> Option<&str> {
        self.key().map(|key| key.name())
    }

    /// True if the client may use `model`.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.key().is_none_or(|key| key.may_use(model))
    }

    /// Checks that the client may use a route now.
    ///
    /// # Errors
    ///
    /// The reason of the refusal.
    pub(crate) fn authorize(&self, access: RouteAccess) -> Result<(), Refusal> {
        self.key().map_or(Ok(()), |key| key.authorize(access))
    }

    /// Sets OpenAI's headers for each limit of the client.
    pub(crate) fn insert_limits(&self, headers: &mut HeaderMap) {
        if let Some(key) = self.key() {
            key.insert_limits(headers);
        }
    }
}
