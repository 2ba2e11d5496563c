//! Who is served: a token, and addresses.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use tightwad_core::Token;

type Allows = dyn Fn(IpAddr) -> bool + Send + Sync;

/// Who is served; by default everybody.
#[derive(Default)]
pub(crate) struct Access {
    token: Option<Token>,
    allows: Option<Box<Allows>>,
}

impl Access {
    pub(crate) fn new(token: Option<Token>, allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { token, allows: Some(Box::new(allows)) }
    }

    /// True when the header is the token's, or no token is needed.
    pub(crate) fn admits_token(&self, header: Option<&[u8]>) -> bool {
        self.token.as_ref().is_none_or(|token| token.admits(header))
    }

    /// True when the address is allowed.
    pub(crate) fn admits_address(&self, address: Option<IpAddr>) -> bool {
        // An unspecified address is in no list, but in a list of everything.
        let address = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        self.allows.as_ref().is_none_or(|allows| allows(address))
    }
}

/// Where a question comes from, when the server was made to know.
pub(crate) fn address_of(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical())
}
