use tokio::io::AsyncReadExt;
use tokio::time::{Instant, pause};

use super::*;
use crate::cache::TensorCache;
use crate::protocol::HEARTBEAT_INTERVAL;
use crate::server::{MemoryQuota, serve_tunnel};
use crate::testing::{
    GET_TENSOR, RpcServer, WorkerPort, alloc_command, command, noise, rpc_server, switch_protocols, tensor,
    worker_port,
};

/// A connection of llama.cpp through both ends of a tunnel.
struct Connection {
    llama: TcpStream,
    server: RpcServer,
    tunnel: Tunnel,
    _port: WorkerPort,
}

impl Connection {
    async fn open(cache: Option<Arc<TensorCache>>, uses_cpu: bool) -> Self {
        let (connection, server) = rpc_server().await;
        let connection = std::sync::Mutex::new(Some(connection));
        let port = worker_port(move |mut host| {
            let connection = connection.lock().unwrap().take().unwrap();
            let cache = cache.clone();
            async move {
                switch_protocols(&mut host).await;
                let _ = serve_tunnel(host, connection, cache, Arc::new(MemoryQuota::new(1000))).await;
            }
        });
        let port = port.await;
        let tunnel = tunnel(&port, uses_cpu).await;
        let llama = TcpStream::connect(tunnel.address()).await.unwrap();
        Self { llama, server, tunnel, _port: port }
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        self.llama.write_all(&command(kind, body)).await.unwrap();
    }

    async fn reply(&mut self) -> Vec<u8> {
        let length = self.llama.read_u64_le().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.llama.read_exact(&mut body).await.unwrap();
        body
    }

    /// Sends a tensor. Returns the body that the server received.
    async fn set_tensor(&mut self, body: &[u8]) -> Vec<u8> {
        self.send(command::SET_TENSOR, body).await;
        let received = self.server.commands.recv().await.unwrap();
        assert_eq!(received.kind, command::SET_TENSOR);
        received.body
    }

    fn sent_bytes(&self) -> u64 {
        self.tunnel.stats().sent_bytes.load(Ordering::Relaxed)
    }
}

async fn tunnel(port: &WorkerPort, uses_cpu: bool) -> Tunnel {
    let http = tightwad_net::machine_client().build().unwrap();
    let url = format!("http://{}", port.address);
    Tunnel::open(http, WorkerEndpoint { url, token: None, uses_cpu }).await.unwrap()
}

/// The error of a tunnel to a worker that runs `script` on its connection.
async fn tunnel_error<F>(script: fn(TcpStream) -> F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let port = worker_port(script).await;
    let tunnel = tunnel(&port, false).await;
    let _llama = TcpStream::connect(tunnel.address()).await.unwrap();
    let TunnelError(reason) = tunnel.watch().wait_for_failure().await;
    assert_eq!(tunnel.error(), Some(TunnelError(reason.clone())));
    reason
}

#[tokio::test]
async fn tunnel_relays_bytes_unchanged_in_both_directions() {
    let mut connection = Connection::open(None, false).await;
    connection.llama.write_all(&alloc_command(500)).await.unwrap();
    assert_eq!(connection.reply().await, [1, 500].map(u64::to_le_bytes).concat());
    assert_eq!(connection.server.commands.recv().await.unwrap().encode(), alloc_command(500));
    for size in [0, 1, 2 * READ_BUFFER_BYTES + 1] {
        let body = noise(5, size);
        connection.send(GET_TENSOR, &body).await;
        assert!(connection.reply().await == body, "a reply of {size} bytes");
        assert!(connection.server.commands.recv().await.unwrap().body == body, "a command of {size} bytes");
    }
    let received = connection.tunnel.stats().received_bytes.load(Ordering::Relaxed);
    assert!(
        connection.sent_bytes() > 2 * READ_BUFFER_BYTES as u64 && received > 2 * READ_BUFFER_BYTES as u64
    );
    assert_eq!(connection.tunnel.error(), None);
}

#[tokio::test]
async fn second_load_sends_digests_instead_of_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(TensorCache::new(folder.path().to_owned(), 1 << 30).unwrap());
    let tensors: Vec<Vec<u8>> = (1..=3).map(|seed| tensor(&noise(seed, 50_000))).collect();
    let mut sent = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(Some(cache.clone()), false).await;
        for tensor in &tensors {
            let received = connection.set_tensor(tensor).await;
            assert!(received[TENSOR_HEADER_BYTES..] == tensor[TENSOR_HEADER_BYTES..]);
        }
        connection.send(GET_TENSOR, &[]).await;
        connection.reply().await;
        sent.push((connection.sent_bytes(), connection.tunnel.stats().cached_bytes.load(Ordering::Relaxed)));
    }
    assert!(sent[0].0 > 150_000 && sent[0].1 == 0, "{sent:?}");
    assert!(sent[1].0 < 2_000 && sent[1].1 == 150_000, "{sent:?}");
}

#[tokio::test]
async fn small_tensors_and_tensors_after_the_first_pass_are_not_cached() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(TensorCache::new(folder.path().to_owned(), 1 << 30).unwrap());
    let mut connection = Connection::open(Some(cache.clone()), false).await;
    let (small, large) =
        (tensor(&noise(1, MIN_CACHED_TENSOR_BYTES - 1)), tensor(&noise(2, MIN_CACHED_TENSOR_BYTES)));
    assert_eq!(connection.set_tensor(&small).await, small);
    connection.send(command::GRAPH_RECOMPUTE, &[]).await;
    connection.server.commands.recv().await.unwrap();
    assert_eq!(connection.set_tensor(&large).await, large);
    assert_eq!(cache.bytes(), 0);
}

#[tokio::test]
async fn similar_graph_is_sent_as_a_difference() {
    let mut connection = Connection::open(None, false).await;
    let mut graph = noise(9, 100_000);
    let mut sent = Vec::new();
    for round in 0..3 {
        let before = connection.sent_bytes();
        graph[500] = round;
        connection.send(command::GRAPH_COMPUTE, &graph).await;
        let received = connection.server.commands.recv().await.unwrap();
        assert!(received.kind == command::GRAPH_COMPUTE && received.body == graph, "round {round}");
        sent.push(connection.sent_bytes() - before);
    }
    assert!(sent[0] > 50_000 && sent[1] < 200 && sent[2] < 200, "{sent:?}");
}

#[tokio::test]
async fn host_answers_some_requests_itself() {
    let mut connection = Connection::open(None, true).await;
    connection.send(command::SET_TENSOR_HASH, &[7; 32]).await;
    assert_eq!(connection.reply().await, [0], "the worker does not have the tensor");
    // A tensor with one value of type F32.
    let mut request = vec![0; 3300];
    request[24..56].copy_from_slice(&[1_u32, 1, 1, 1, 4, 4, 4, 4].map(u32::to_le_bytes).concat());
    connection.send(command::GET_ALLOC_SIZE, &request).await;
    assert_eq!(connection.reply().await, 4_u64.to_le_bytes());
    connection.send(GET_TENSOR, b"the next").await;
    assert_eq!(connection.server.commands.recv().await.unwrap().body, b"the next");
}

#[tokio::test]
async fn end_of_llama_is_not_an_error() {
    let Connection { llama, mut server, tunnel, _port } = Connection::open(None, false).await;
    drop(llama);
    assert!(server.commands.recv().await.is_none());
    assert_eq!(tunnel.error(), None);
}

#[tokio::test]
async fn refusal_of_the_worker_is_quoted() {
    let reason = tunnel_error(|mut host| async move {
        let body = r#"{"error": {"message": "4 pools use this worker"}}"#;
        let response =
            format!("HTTP/1.1 429 Too Many Requests\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        host.write_all(response.as_bytes()).await.unwrap();
    });
    assert_eq!(reason.await, "429 Too Many Requests: 4 pools use this worker");
}

#[tokio::test]
async fn wrong_frame_of_the_worker_is_an_error() {
    async fn script(mut host: TcpStream, frames: &[(FrameKind, &[u8])]) {
        switch_protocols(&mut host).await;
        for (kind, body) in frames {
            write_frame(&mut host, *kind, &[body]).await.unwrap();
        }
        // Waits until the host disconnects.
        let _ = host.read_to_end(&mut Vec::new()).await;
    }
    let reason = tunnel_error(|host| script(host, &[(FrameKind::Heartbeat, &[])])).await;
    assert_eq!(reason, "the worker's first frame is not its list of cached tensors");
    let reason =
        tunnel_error(|host| script(host, &[(FrameKind::Cached, &[]), (FrameKind::Tensor, &[1])])).await;
    assert_eq!(reason, "the worker sent a frame that only hosts send");
    let reason =
        tunnel_error(|host| script(host, &[(FrameKind::Cached, &[]), (FrameKind::Error, b"out of luck")]))
            .await;
    assert_eq!(reason, "out of luck");
}

#[tokio::test]
async fn closed_connection_of_the_worker_is_an_error() {
    let reason = tunnel_error(|mut host| async move {
        switch_protocols(&mut host).await;
        write_frame(&mut host, FrameKind::Cached, &[]).await.unwrap();
        host.shutdown().await.unwrap();
        let _ = host.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(reason.await, "the worker closed the connection");
    let reason = tunnel_error(|mut host| async move {
        switch_protocols(&mut host).await;
        host.write_all(&[&[FrameKind::Cached as u8][..], &u64::MAX.to_le_bytes()].concat()).await.unwrap();
        let _ = host.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(reason.await, "a message of 18446744073709551615 bytes exceeds the limit of 64 GiB");
}

#[tokio::test]
async fn missing_heartbeats_of_the_worker_are_an_error() {
    let start = std::sync::Arc::new(std::sync::OnceLock::new());
    let start_setter = start.clone();
    let port = worker_port(move |mut host| {
        let start_setter = start_setter.clone();
        async move {
            switch_protocols(&mut host).await;
            write_frame(&mut host, FrameKind::Cached, &[]).await.unwrap();
            // The first command shows that the tunnel is open.
            Message::read(&mut host).await.unwrap();
            pause();
            start_setter.set(Instant::now()).unwrap();
            let _ = host.read_to_end(&mut Vec::new()).await;
        }
    });
    let port = port.await;
    let tunnel = tunnel(&port, false).await;
    let mut llama = TcpStream::connect(tunnel.address()).await.unwrap();
    llama.write_all(&command(GET_TENSOR, &[])).await.unwrap();
    assert_eq!(
        tunnel.watch().wait_for_failure().await,
        TunnelError("the worker sent no heartbeat within 12 s".to_owned())
    );
    let elapsed = start.get().unwrap().elapsed();
    let (earliest, latest) =
        (HEARTBEAT_TIMEOUT - HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT + 3 * HEARTBEAT_INTERVAL);
    assert!(elapsed > earliest && elapsed < latest, "after {elapsed:?}");
}

#[tokio::test]
async fn slow_opening_of_a_tunnel_is_an_error() {
    let reason = tunnel_error(|mut host| async move {
        pause();
        let _ = host.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(reason.await, "the worker did not open a tunnel within 15 s");
}

#[tokio::test]
async fn dropped_tunnel_closes() {
    let Connection { mut llama, server: _server, tunnel, _port } = Connection::open(None, false).await;
    let watch = tunnel.watch();
    drop(tunnel);
    assert_eq!(watch.wait_for_failure().await, TunnelError("the tunnel was closed".to_owned()));
    assert_eq!(llama.read(&mut [0]).await.unwrap_or_default(), 0);
}
