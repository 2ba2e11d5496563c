//! Servers for other machines: their socket, key and token.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tightwad_core::{Token, random_hex};
use tightwad_net::door::{Encryption, PlainAccess};
use tightwad_net::tls::{Fingerprint, Identity, PairedMachines, ServerTls};
use tightwad_swarm::net::{Peer, Seeding, Seeds};
use tokio::net::TcpListener;

use crate::cli::listen;

/// Connections to and from other machines.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MachineArgs {
    /// Also allows connections with other machines without encryption. Anyone on the network can read their token, prompts
    /// and weights.
    #[arg(long)]
    insecure: bool,
}

/// A server for other machines.
pub(crate) struct MachineServer {
    pub listener: TcpListener,
    pub encryption: Encryption,
    /// The token that clients prove or send. `None`: only this machine reaches the server.
    pub token: Option<Token>,
    /// The fingerprint of this machine's key in its address. `None`: clients need no encryption.
    fingerprint: Option<Fingerprint>,
}

impl MachineArgs {
    /// Refuses a peer whose connections would cross a network without encryption.
    pub(crate) fn check(&self, argument: &str, url: &str, is_exposed: bool) -> Result<()> {
        if is_exposed && !self.insecure {
            bail!(
                "{argument} {url} would not be encrypted. Use the address that the machine prints, or add --insecure."
            );
        }
        Ok(())
    }

    /// Refuses seeders whose connections would cross a network without encryption.
    pub(crate) fn check_peers(&self, peers: &[Peer]) -> Result<()> {
        peers.iter().try_for_each(|peer| self.check("--peer", &peer.to_string(), peer.is_exposed()))
    }

    /// Listens on `address`. Addresses other than loopback need a token, which `token_source` names, or a paired machine.
    pub(crate) async fn bind(
        &self,
        address: &str,
        token: Option<Token>,
        token_source: &str,
    ) -> Result<MachineServer> {
        let addresses = listen::resolve(address).await?;
        let is_local = addresses.iter().all(|address| address.ip().is_loopback());
        let paired = PairedMachines::of_user();
        let token = match token {
            None if is_local => None,
            // No machine knows this token: only paired machines have access.
            None if !self.insecure && !paired.list().is_empty() => Some(Token::new(&random_hex::<32>())?),
            None => bail!(
                "other machines can reach {address}. Set a token with {token_source}, or pair a machine with `tightwad pair`."
            ),
            token => token,
        };
        let listener = listen::listen(address, &addresses).await?;
        let plain = if self.insecure { PlainAccess::Everywhere } else { PlainAccess::Loopback };
        let identity = match Identity::of_user() {
            Err(error) if is_local || self.insecure => {
                tracing::debug!(%error, "connections are not encrypted");
                None
            }
            identity => Some(identity.context("connections from other machines are encrypted")?),
        };
        if self.insecure {
            tracing::warn!(
                "other machines can connect without encryption: anyone on the network can read what they send"
            );
        }
        let tls = identity.as_ref().map(|identity| ServerTls::of_machine(identity, paired, token.clone()));
        let encryption = Encryption { tls: tls.transpose()?, plain };
        let fingerprint = identity.map(|identity| identity.fingerprint()).filter(|_| !is_local);
        Ok(MachineServer { listener, encryption, token, fingerprint })
    }
}

impl MachineServer {
    /// The address for other machines.
    pub(crate) fn url(&self) -> Result<String> {
        let address = self.listener.local_addr()?;
        let Some(fingerprint) = self.fingerprint else { return Ok(format!("http://{address}")) };
        Ok(format!("tightwad://{}#{fingerprint}", listen::reachable(address)))
    }

    /// What a pull needs to seed at this address.
    pub(crate) fn seeding(&self, seeds: &Arc<Seeds>) -> Result<Seeding> {
        let port = Some(self.listener.local_addr()?.port());
        Ok(Seeding { seeds: seeds.clone(), port, encrypted: self.is_encrypted() })
    }

    /// Whether connections of other machines are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.fingerprint.is_some()
    }
}
