//! A text server whose answers never end.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running server. Dropping the value ends it.
pub(crate) struct HostileServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl HostileServer {
    /// Starts the server on a free port of loopback.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that leaves ends its connection.
                tokio::spawn(async move { drop(answer(stream).await) });
            }
        });
        Ok(Self { address, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lists one model. Answers every other request with a line that never ends.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = [0; 4096];
    let length = stream.read(&mut head).await?;
    if head[..length].starts_with(b"GET") {
        let list = r#"{"object":"list","data":[{"id":"hostile","object":"model"}]}"#;
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{list}",
            list.len()
        );
        return stream.write_all(reply.as_bytes()).await;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ").await?;
    loop {
        stream.write_all(&[b'x'; 1 << 16]).await?;
    }
}
