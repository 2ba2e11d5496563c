//! Access rules of a seeder: a token, and allowed addresses.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use tightwad_core::Token;

type Allows = dyn Fn(IpAddr) -> bool + Send + Sync;

/// The access rules. The default admits every request.
#[derive(Default)]
pub(crate) struct Access {
    token: Option<Token>,
    allows: Option<Box<Allows>>,
}

impl Access {
    pub(crate) fn new(token: Option<Token>, allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { token, allows: Some(Box::new(allows)) }
    }

    /// Whether the seeder asks for a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the header carries the token. True when the seeder has no token.
    pub(crate) fn admits_token(&self, header: Option<&[u8]>) -> bool {
        self.token.as_ref().is_none_or(|token| token.admits(header))
    }

    /// Whether the address is allowed.
    pub(crate) fn admits_address(&self, address: Option<IpAddr>) -> bool {
        // An unknown address counts as 0.0.0.0: only a list that allows everything contains it.
        let address = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        self.allows.as_ref().is_none_or(|allows| allows(address))
    }
}

/// The address that a request comes from, if the server records it.
pub(crate) fn address_of(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical())
}
