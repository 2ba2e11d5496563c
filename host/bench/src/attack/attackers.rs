//! The attackers of a host.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Connections that never finish their header.
const HALF_OPEN_CONNECTIONS: usize = 1000;
/// Clients that do not read their answers.
const STALLED_READERS: usize = 8;
/// Large bodies, and their size.
const LARGE_BODIES: usize = 100;
const LARGE_BODY_BYTES: usize = 10_000_000;
/// Clients that send large bodies at the same time.
const LARGE_BODY_CLIENTS: usize = 4;
/// Pause of an attacker after a refusal.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// An attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Attack {
    /// 1,000 connections that never finish their header.
    HalfOpen,
    /// 8 clients that do not read their answers.
    StalledReaders,
    /// 100 bodies of 10 MB.
    LargeBodies,
    /// A pipeline that computes without end.
    FrozenScript,
    /// A driver that never returns.
    LoopingPlugin,
    /// A text server whose answers never end.
    HostilePeer,
}

impl Attack {
    /// Number of the attacker's requests that the host works on at the same time, as it does for honest clients.
    pub(crate) fn admitted(self) -> usize {
        match self {
            Self::HalfOpen | Self::LargeBodies => 0,
            Self::StalledReaders => STALLED_READERS,
            Self::FrozenScript | Self::LoopingPlugin | Self::HostilePeer => 1,
        }
    }
}

/// Running attackers.
pub(crate) struct Attackers(JoinSet<Result<()>>);

impl Attackers {
    /// Starts the attackers of `attack` against the host at `address`.
    pub(crate) fn start(attack: Attack, address: SocketAddr) -> Result<Self> {
        let mut tasks = JoinSet::new();
        match attack {
            Attack::HalfOpen => {
                for _ in 0..HALF_OPEN_CONNECTIONS {
                    tasks.spawn(stay_half_open(address));
                }
            }
            Attack::StalledReaders => {
                for number in 0..STALLED_READERS {
                    tasks.spawn(stall(address, number));
                }
            }
            Attack::LargeBodies => {
                for number in 0..LARGE_BODY_CLIENTS {
                    tasks.spawn(send_large_bodies(address, number));
                }
            }
            Attack::FrozenScript => drop(tasks.spawn(ask(address, "frozen"))),
            Attack::LoopingPlugin => drop(tasks.spawn(ask(address, "looping"))),
            Attack::HostilePeer => drop(tasks.spawn(ask(address, "hostile"))),
        }
        Ok(Self(tasks))
    }

    /// Ends the attackers and closes their connections.
    pub(crate) async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

fn chat(model: &str, fields: Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "Tell me a story."}]});
    for (key, value) in fields.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

/// The head and the body of a request.
fn request_bytes(address: SocketAddr, body: &str) -> Vec<u8> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Keeps a connection whose header never ends. Connects again when the host closes it.
async fn stay_half_open(address: SocketAddr) -> Result<()> {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let _ = stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX: ").await;
            let _ = stream.read(&mut [0; 64]).await;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Asks for a long answer and does not read it. Asks again when the host closes the connection.
async fn stall(address: SocketAddr, number: usize) -> Result<()> {
    let body = chat(
        "plain",
        json!({"stream": true, "max_tokens": 900, "seed": number, "temperature": 1, "logprobs": true, "top_logprobs": 20}),
    );
    loop {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&request_bytes(address, &body.to_string())).await?;
        // The end of the connection makes the socket writable with an error.
        while stream.writable().await.is_ok() && stream.take_error()?.is_none() {
            sleep(RETRY_INTERVAL).await;
            if stream.try_write(b"\r\n").is_err() {
                break;
            }
        }
    }
}

/// Sends the attacker's share of the large bodies: many numbers in a field that no request has.
async fn send_large_bodies(address: SocketAddr, number: usize) -> Result<()> {
    let zeros = "0,".repeat(LARGE_BODY_BYTES / 2);
    let body = format!(
        r#"{{"model":"plain","n":8,"max_tokens":1,"messages":[{{"role":"user","content":"x","x":[{zeros}0]}}]}}"#
    );
    for _ in (number..LARGE_BODIES).step_by(LARGE_BODY_CLIENTS) {
        let sent = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&request_bytes(address, &body)).await?;
            stream.read(&mut [0; 1024]).await
        };
        // A refusal is an answer too.
        let _ = sent.await;
    }
    std::future::pending().await
}

/// Asks `model` repeatedly.
async fn ask(address: SocketAddr, model: &str) -> Result<()> {
    let client = tightwad_net::machine_client().build()?;
    let body = chat(model, json!({"max_tokens": 64}));
    loop {
        let request = client.post(format!("http://{address}/v1/chat/completions")).json(&body);
        if request.send().await.is_err() {
            sleep(RETRY_INTERVAL).await;
        }
    }
}
