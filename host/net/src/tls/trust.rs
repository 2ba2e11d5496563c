//! Which machines a client trusts, and what it proves to them.

use std::collections::HashMap;

use tightwad_core::Token;

use crate::tls::fingerprint::Fingerprint;
use crate::tls::identity::Identity;
use crate::tls::paired::PairedMachines;
use crate::tls::verifier::ServerTrust;

/// Which machines a client trusts, and what it proves to them.
#[derive(Debug, Clone)]
pub struct MachineTrust {
    /// The key of this machine.
    pub identity: Identity,
    /// The machines that are paired with this one.
    pub paired: PairedMachines,
    /// The fingerprints of machines by `HOST:PORT`.
    pub pinned: HashMap<String, Fingerprint>,
    /// The token that both machines prove.
    pub token: Option<Token>,
    /// Without a token, unknown machines are accepted as well. This is right only where the client checks what it
    /// receives and sends no secret, as in the swarm.
    pub accepts_unknown: bool,
}

impl MachineTrust {
    /// Trust in paired machines only.
    ///
    /// # Errors
    ///
    /// [`IdentityError`](crate::tls::IdentityError) if this machine has no key.
    pub fn of_user(token: Option<Token>) -> Result<Self, crate::tls::IdentityError> {
        Ok(Self {
            identity: Identity::of_user()?,
            paired: PairedMachines::of_user(),
            pinned: HashMap::new(),
            token,
            accepts_unknown: false,
        })
    }

    /// Which keys of the machine at `authority` (HOST:PORT) the client accepts.
    pub(crate) fn of(&self, authority: &str) -> ServerTrust {
        match self.pinned.get(authority) {
            Some(fingerprint) => ServerTrust::Pinned(*fingerprint),
            None if self.token.is_some() || self.accepts_unknown => ServerTrust::Unknown,
            None => ServerTrust::Paired(self.paired.fingerprints()),
        }
    }
}
