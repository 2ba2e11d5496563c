//! Pairing of two machines by a code.

use std::net::SocketAddr;
use std::time::Duration;

use tightwad_net::tls::{
    CODE_LIFETIME, Identity, PairedMachine, PairingCode, PairingError, host_pairing, join_pairing,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::tls::relay_decrypted;

type Outcome = JoinHandle<Result<PairedMachine, PairingError>>;

/// A machine that shows `code`.
async fn host(identity: &Identity, code: &str, lifetime: Duration) -> (SocketAddr, Outcome) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (identity, code) = (identity.clone(), code.parse::<PairingCode>().unwrap());
    let pairing = async move { host_pairing(listener, &identity, "attic", &code, lifetime).await };
    (address, tokio::spawn(pairing))
}

async fn join(identity: &Identity, address: SocketAddr, code: &str) -> Result<PairedMachine, PairingError> {
    join_pairing(&address.to_string(), identity, "cellar", &code.parse().unwrap()).await
}

#[tokio::test]
async fn code_pairs_two_machines() {
    let (host_key, guest_key) = (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap());
    let (address, hosting) = host(&host_key, "1234-5678", CODE_LIFETIME).await;
    // One mistake is allowed.
    let error = join(&guest_key, address, "1234-5679").await.unwrap_err();
    assert_eq!(error.to_string(), "the code is wrong, or another machine answers at this address");
    let found = join(&guest_key, address, "12345678").await.unwrap();
    assert_eq!((found.name.as_str(), found.fingerprint), ("attic", host_key.fingerprint()));
    let found = hosting.await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.fingerprint), ("cellar", guest_key.fingerprint()));
}

#[tokio::test]
async fn three_wrong_codes_end_the_pairing() {
    let (host_key, guest_key) = (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap());
    let (address, hosting) = host(&host_key, "1234-5678", CODE_LIFETIME).await;
    for code in ["00000000", "11111111", "22222222"] {
        assert!(matches!(join(&guest_key, address, code).await, Err(PairingError::WrongCode)));
    }
    let error = hosting.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "3 codes were wrong. Start `tightwad pair` again for a new code");
    let error = join(&guest_key, address, "1234-5678").await.unwrap_err();
    assert!(error.to_string().contains("is `tightwad pair` still running there?"), "{error}");
}

#[tokio::test]
async fn code_expires() {
    let (host_key, guest_key) = (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap());
    let (address, hosting) = host(&host_key, "1234-5678", Duration::from_millis(20)).await;
    let error = hosting.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the code has expired. Start `tightwad pair` again for a new code");
    assert!(matches!(join(&guest_key, address, "1234-5678").await, Err(PairingError::Unreachable(..))));
}

#[tokio::test]
async fn machine_in_the_middle_cannot_pair() {
    let (host_key, guest_key) = (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap());
    let (address, hosting) = host(&host_key, "1234-5678", CODE_LIFETIME).await;
    let middle = relay_decrypted(address, b"tightwad-pair/1").await;
    for _ in 0..3 {
        assert!(join(&guest_key, middle, "1234-5678").await.is_err());
    }
    assert!(hosting.await.unwrap().is_err());
}
