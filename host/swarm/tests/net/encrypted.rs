//! Pulls from encrypted seeders.

use std::future::pending;
use std::net::SocketAddr;

use tightwad_core::Token;
use tightwad_net::door::{Encryption, PlainAccess};
use tightwad_net::tls::{Identity, PairedMachines, ServerTls};
use tightwad_swarm::net::{Client, Peer, Pull, SeedState, serve};
use tokio::net::TcpListener;

use super::pickers::InOrder;
use super::support::{Lab, MIB, run, seeds};

/// Starts a seeder that accepts encrypted connections only, and machines that know its token. Returns its address with and
/// without the fingerprint.
async fn encrypted_seeder(state: SeedState, token: &str) -> (Peer, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (identity, token) = (Identity::ephemeral().unwrap(), Token::new(token).ok());
    let paired = PairedMachines::in_folder("no folder".into());
    let tls = Some(ServerTls::of_machine(&identity, paired, token.clone()).unwrap());
    let encryption = Encryption { tls, plain: PlainAccess::Nowhere };
    tokio::spawn(serve(listener, state.access(token, |_| true), encryption, pending()));
    (Peer::seeder(&format!("tightwad://{address}#{}", identity.fingerprint())).unwrap(), address)
}

/// A pull from `named` with `token` that fetches pieces in order.
fn pull(lab: &Lab, named: &[Peer], token: &str) -> Pull {
    let client = Client::new(Token::new(token).ok(), named, Identity::ephemeral().ok()).unwrap();
    Pull::new(client, lab.empty("b"), Box::new(InOrder::default()), named.to_vec())
}

#[tokio::test]
async fn told_seeder_gets_a_proof_instead_of_the_token() {
    let lab = Lab::new(6, MIB);
    let (complete, told) = encrypted_seeder(SeedState::new(seeds(lab.complete())), "secret").await;
    let first = seeds(lab.partial("a", [0]));
    first.add_peer(lab.manifest.root(), told, true);
    let (named, _) = encrypted_seeder(SeedState::new(first), "secret").await;
    let summary = run(pull(&lab, &[named], "secret")).await.unwrap();
    assert!(lab.is_same(&lab.path("b")));
    assert!(summary.bytes_by_peer.iter().any(|(peer, _)| *peer == complete), "{summary:?}");
}

#[tokio::test]
async fn seeder_with_another_key_or_token_is_refused() {
    let lab = Lab::new(1, MIB);
    let (peer, address) = encrypted_seeder(SeedState::new(seeds(lab.complete())), "secret").await;
    let error = run(pull(&lab, &[peer], "another")).await.unwrap_err().to_string();
    assert!(error.contains("does not accept this token"), "{error}");
    let wrong = Peer::seeder(&format!("tightwad://{address}#{}", "0".repeat(64))).unwrap();
    let error = run(pull(&lab, &[wrong], "secret")).await.unwrap_err().to_string();
    assert!(error.contains("Another machine answers"), "{error}");
}
