//! The proof that both ends of a connection know the same token, without sending it.
//!
//! After the handshake the client sends [`Hello`]: whether it proves a token, and the proof
//! `HMAC-SHA256(token, "client" ‖ exporter)`. If that is right, the server answers with the same for "server". The exporter
//! (RFC 8446, 7.5; RFC 9266; label [`EXPORTER_LABEL`]) is the challenge of both sides: it depends on fresh random numbers of
//! both, and belongs to one TLS connection. A machine in the middle has two connections with two exporters, so it cannot
//! relay a proof; and a recorded proof fits no other connection. So the proof takes one round trip. HTTP follows on the same
//! connection.
//!
//! A peer that a client asks can try tokens against the proof that it received. Tokens must therefore be long and random.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tightwad_core::Token;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The application protocol (RFC 7301) of connections that begin with a [`Hello`].
pub(crate) const PROOF_PROTOCOL: &[u8] = b"tightwad/1";
/// The application protocol of other clients, such as curl.
pub(crate) const HTTP_PROTOCOL: &[u8] = b"http/1.1";
/// The label of the exporter.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-tightwad-proof";

const MAC_BYTES: usize = 32;

/// The exporter value of a connection.
pub(crate) type Exporter = [u8; 32];

/// What the client says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Hello {
    /// HTTP follows at once.
    NoProof = 0,
    /// The client proves a token: the code follows.
    Token = 1,
}

/// What the server says about a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Verdict {
    Accepted = 0,
    WrongToken = 1,
    /// The server does not ask this client for a token.
    NoToken = 2,
}

/// The result of a client's proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proved {
    /// Both sides know the token.
    Both,
    /// The server has no token, so it proved nothing.
    Nothing,
}

/// The reason why a client does not use a connection.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The server has another token.
    #[error("it does not accept this token: set `token` to the one that it was started with")]
    WrongToken,
    /// The server does not know the token, although it says so.
    #[error("it does not know the token: another machine answers at its address")]
    Impostor,
    /// The connection broke, or the server is not a tightwad machine.
    #[error("it did not answer the proof of the token: {0}")]
    Connection(#[from] io::Error),
}

/// Begins a connection as a client. With a token, both sides prove that they know it.
pub(crate) async fn prove(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    exporter: &Exporter,
    token: Option<&Token>,
) -> Result<Proved, ProofError> {
    let Some(token) = token else {
        stream.write_u8(Hello::NoProof as u8).await?;
        stream.flush().await?;
        return Ok(Proved::Nothing);
    };
    let proof = Proof { token, exporter };
    let mac = proof.mac(Side::Client).finalize().into_bytes();
    stream.write_all(&[&[Hello::Token as u8][..], &mac].concat()).await?;
    stream.flush().await?;
    let verdict = stream.read_u8().await?;
    if verdict == Verdict::NoToken as u8 {
        return Ok(Proved::Nothing);
    }
    if verdict != Verdict::Accepted as u8 {
        return Err(ProofError::WrongToken);
    }
    let mut mac = [0; MAC_BYTES];
    stream.read_exact(&mut mac).await?;
    proof.mac(Side::Server).verify_slice(&mac).map_err(|_| ProofError::Impostor)?;
    Ok(Proved::Both)
}

/// Begins a connection as a server. True if the client has proved that it knows `token`. A paired client (`is_paired`) may
/// have another token.
///
/// # Errors
///
/// The connection broke, the client does not follow the protocol, or it has another token. The server must close the
/// connection: a client that failed to prove its token must not use it.
pub(crate) async fn check_proof(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    exporter: &Exporter,
    token: Option<&Token>,
    is_paired: bool,
) -> io::Result<bool> {
    let hello = stream.read_u8().await?;
    if hello == Hello::NoProof as u8 {
        return Ok(false);
    }
    if hello != Hello::Token as u8 {
        return Err(io::Error::other("the client began with an unknown byte"));
    }
    let mut mac = [0; MAC_BYTES];
    stream.read_exact(&mut mac).await?;
    let proof = token.map(|token| Proof { token, exporter });
    let is_right = proof.as_ref().is_some_and(|proof| proof.mac(Side::Client).verify_slice(&mac).is_ok());
    let Some(proof) = proof.filter(|_| is_right || !is_paired) else {
        stream.write_u8(Verdict::NoToken as u8).await?;
        stream.flush().await?;
        return Ok(false);
    };
    if !is_right {
        stream.write_u8(Verdict::WrongToken as u8).await?;
        stream.shutdown().await?;
        return Err(io::Error::other("the client has another token"));
    }
    let mac = proof.mac(Side::Server).finalize().into_bytes();
    stream.write_all(&[&[Verdict::Accepted as u8][..], &mac].concat()).await?;
    stream.flush().await?;
    Ok(true)
}

/// The side that computes a code. A code of one side does not serve the other.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

/// What both codes of a proof are made of.
struct Proof<'a> {
    token: &'a Token,
    exporter: &'a Exporter,
}

impl Proof<'_> {
    fn mac(&self, side: Side) -> Hmac<Sha256> {
        // HMAC takes keys of any length.
        #[allow(clippy::expect_used)]
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.token.secret().as_bytes()).expect("a key of any length");
        mac.update(match side {
            Side::Client => b"client",
            Side::Server => b"server",
        });
        mac.update(self.exporter);
        mac
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn token(text: &str) -> Token {
        Token::new(text).unwrap()
    }

    /// The results of a client and a server with these exporters and tokens.
    async fn exchange(
        exporters: (Exporter, Exporter),
        tokens: (Option<&str>, Option<&str>),
    ) -> (Result<Proved, ProofError>, io::Result<bool>) {
        let (mut client, mut server) = duplex(1024);
        let (client_token, server_token) = (tokens.0.map(token), tokens.1.map(token));
        let client = async {
            let proved = prove(&mut client, &exporters.0, client_token.as_ref()).await;
            (proved, client)
        };
        let server = async {
            let checked = check_proof(&mut server, &exporters.1, server_token.as_ref(), false).await;
            drop(server);
            checked
        };
        let ((proved, _client), checked) = tokio::join!(client, server);
        (proved, checked)
    }

    #[tokio::test]
    async fn both_sides_prove_the_same_token() {
        let exporters = ([1; 32], [1; 32]);
        let (proved, checked) = exchange(exporters, (Some("secret"), Some("secret"))).await;
        assert_eq!((proved.unwrap(), checked.unwrap()), (Proved::Both, true));
        let (proved, checked) = exchange(exporters, (None, Some("secret"))).await;
        assert_eq!((proved.unwrap(), checked.unwrap()), (Proved::Nothing, false));
        let (proved, checked) = exchange(exporters, (Some("secret"), None)).await;
        assert_eq!((proved.unwrap(), checked.unwrap()), (Proved::Nothing, false));
    }

    #[tokio::test]
    async fn other_token_and_other_connection_are_refused() {
        let (proved, checked) = exchange(([1; 32], [1; 32]), (Some("secret"), Some("other"))).await;
        assert!(matches!(proved, Err(ProofError::WrongToken)) && checked.is_err(), "{proved:?}");
        // A machine in the middle relays all bytes between two connections.
        let (proved, checked) = exchange(([1; 32], [2; 32]), (Some("secret"), Some("secret"))).await;
        assert!(matches!(proved, Err(ProofError::WrongToken)) && checked.is_err(), "{proved:?}");
    }

    #[tokio::test]
    async fn recorded_proof_and_impostor_are_refused() {
        // A server that accepts every proof without the token.
        let (mut client, mut server) = duplex(1024);
        let impostor = async {
            let mut hello = [0; 1 + MAC_BYTES];
            server.read_exact(&mut hello).await.unwrap();
            // It sends the client's own code back.
            server.write_all(&[&[0][..], &hello[1..]].concat()).await.unwrap();
            hello
        };
        let secret = token("secret");
        let (proved, recorded) = tokio::join!(prove(&mut client, &[1; 32], Some(&secret)), impostor);
        assert!(matches!(proved, Err(ProofError::Impostor)), "{proved:?}");
        // The recorded proof does not fit another connection.
        let (mut client, mut server) = duplex(1024);
        let replay = async {
            client.write_all(&recorded).await.unwrap();
            client.read_u8().await.unwrap()
        };
        let (verdict, checked) =
            tokio::join!(replay, check_proof(&mut server, &[2; 32], Some(&secret), false));
        assert_eq!(verdict, Verdict::WrongToken as u8);
        assert!(checked.is_err());
    }
}
