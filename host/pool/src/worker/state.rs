//! What the handlers of a worker share.

use std::sync::Arc;

use tightwad_core::Token;
use tightwad_net::Allowed;

use crate::worker::lender::Lender;

/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub struct WorkerState {
    pub(crate) lender: Arc<Lender>,
    pub(crate) token: Option<Token>,
    pub(crate) allowed: Arc<[Allowed]>,
}

impl WorkerState {
    /// `token`: what hosts must send; `allowed`: where they may be, anywhere when empty.
    #[must_use]
    pub fn new(lender: Lender, token: Option<Token>, allowed: Vec<Allowed>) -> Self {
        Self { lender: Arc::new(lender), token, allowed: allowed.into() }
    }
}
