use tokio::io::AsyncReadExt;
use tokio::time::{Instant, pause};

use super::*;
use crate::cache::TensorCache;
use crate::protocol::HEARTBEAT_INTERVAL;
use crate::quota::MemoryQuota;
use crate::rpc;
use crate::server::serve_tunnel;
use crate::testing::{
    RpcServer, WorkerPort, alloc_command, get_tensor, graph, noise, rpc_server, stored_data,
    switch_protocols, tensor, worker_port,
};

/// The memory of the fake worker. It holds all tensors of the tests.
const QUOTA_BYTES: u64 = 1 << 20;

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
                let _ = serve_tunnel(host, connection, cache, Arc::new(MemoryQuota::new(QUOTA_BYTES))).await;
            }
        });
        let port = port.await;
        let tunnel = tunnel(&port, uses_cpu).await;
        let llama = TcpStream::connect(tunnel.address()).await.unwrap();
        Self { llama, server, tunnel, _port: port }
    }

    async fn send(&mut self, command: RpcCommand, body: &[u8]) {
        self.llama.write_all(&rpc::encode(command, body)).await.unwrap();
    }

    /// Allocates a buffer for the tensors of a test.
    async fn allocate(&mut self) {
        self.llama.write_all(&alloc_command(QUOTA_BYTES)).await.unwrap();
        assert_eq!(self.reply().await, [1, QUOTA_BYTES].map(u64::to_le_bytes).concat());
        let received = self.server.commands.recv().await.unwrap();
        assert_eq!(rpc::encode(received.command, &received.body), alloc_command(QUOTA_BYTES));
    }

    async fn reply(&mut self) -> Vec<u8> {
        let length = self.llama.read_u64_le().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.llama.read_exact(&mut body).await.unwrap();
        body
    }

    /// Sends a tensor, which the server must receive.
    async fn set_tensor(&mut self, body: &[u8]) {
        self.send(RpcCommand::SetTensor, body).await;
        let data = &body[TENSOR_HEADER_BYTES..];
        assert!(self.server.tensor(data.len()).await.1 == data);
    }

    fn sent_bytes(&self) -> u64 {
        self.tunnel.stats().sent_bytes.load(Ordering::Relaxed)
    }
}

async fn tunnel(port: &WorkerPort, uses_cpu: bool) -> Tunnel {
    let url = format!("http://{}", port.address).parse().unwrap();
    let machine = RemoteMachine::new(url, None, Duration::from_secs(3)).unwrap();
    Tunnel::open(WorkerEndpoint { machine, uses_cpu }).await.unwrap()
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
    connection.allocate().await;
    for bytes in [1, 2 * READ_BUFFER_BYTES + 1, 1 << 20] {
        connection.set_tensor(&tensor(&noise(5, bytes))).await;
        connection.send(RpcCommand::GetTensor, &get_tensor(3, bytes as u64)).await;
        assert!(connection.reply().await == stored_data(3, bytes as u64), "a reply of {bytes} bytes");
        connection.server.commands.recv().await.unwrap();
    }
    let received = connection.tunnel.stats().received_bytes.load(Ordering::Relaxed);
    assert!(connection.sent_bytes() > 1 << 20 && received > 1 << 20);
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
        connection.allocate().await;
        for tensor in &tensors {
            connection.set_tensor(tensor).await;
        }
        connection.send(RpcCommand::DeviceCount, &[]).await;
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
    connection.allocate().await;
    connection.set_tensor(&tensor(&noise(1, MIN_CACHED_TENSOR_BYTES - 1))).await;
    connection.send(RpcCommand::GraphRecompute, &[0; 4]).await;
    connection.server.commands.recv().await.unwrap();
    connection.set_tensor(&tensor(&noise(2, MIN_CACHED_TENSOR_BYTES))).await;
    assert_eq!(cache.bytes(), 0);
}

#[tokio::test]
async fn similar_graph_is_sent_as_a_difference() {
    let mut connection = Connection::open(None, false).await;
    let mut sent = Vec::new();
    for round in 0..3 {
        let before = connection.sent_bytes();
        let graph = graph(5, 300, round);
        connection.send(RpcCommand::GraphCompute, &graph).await;
        let received = connection.server.commands.recv().await.unwrap();
        assert!(received.command == RpcCommand::GraphCompute && received.body == graph, "round {round}");
        sent.push(connection.sent_bytes() - before);
    }
    assert!(sent[0] > 50_000 && sent[1] < 200 && sent[2] < 200, "{sent:?}");
}

#[tokio::test]
async fn host_answers_some_requests_itself() {
    let mut connection = Connection::open(None, true).await;
    connection.send(RpcCommand::SetTensorHash, &[7; 312]).await;
    assert_eq!(connection.reply().await, [0], "the worker does not have the tensor");
    // A tensor with one value of type F32.
    let mut request = vec![0; 3260];
    request[24..56].copy_from_slice(&[1_u32, 1, 1, 1, 4, 4, 4, 4].map(u32::to_le_bytes).concat());
    connection.send(RpcCommand::GetAllocSize, &request).await;
    assert_eq!(connection.reply().await, 4_u64.to_le_bytes());
    connection.send(RpcCommand::DeviceCount, &[]).await;
    assert_eq!(connection.server.commands.recv().await.unwrap().command, RpcCommand::DeviceCount);
}

#[tokio::test]
async fn invalid_command_of_llama_is_an_error() {
    let connection = Connection::open(None, false).await;
    let watch = connection.tunnel.watch();
    let mut llama = connection.llama;
    llama.write_all(&Header { number: 14, body_bytes: 1 << 31 }.encode()).await.unwrap();
    let TunnelError(reason) = watch.wait_for_failure().await;
    assert_eq!(reason, "the command Hello has 2147483648 bytes instead of 24");
}

#[tokio::test]
async fn end_of_llama_is_not_an_error() {
    let mut connection = Connection::open(None, false).await;
    connection.send(RpcCommand::DeviceCount, &[]).await;
    connection.reply().await;
    let Connection { llama, mut server, tunnel, _port } = connection;
    server.commands.recv().await.unwrap();
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
async fn long_refusal_of_the_worker_is_cut() {
    let reason = tunnel_error(|mut host| async move {
        let _ = host.write_all(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").await;
        // Ends when the host has read enough.
        while host.write_all(&[b'x'; 1024]).await.is_ok() {}
    });
    assert_eq!(reason.await, "500 Internal Server Error: no reason given");
    let reason = tunnel_error(|mut host| async move {
        let body = format!("{{\"error\": {{\"message\": \"\\u001b[31m{}\"}}}}", "x".repeat(2000));
        let response = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        host.write_all(response.as_bytes()).await.unwrap();
    });
    let reason = reason.await;
    assert!(reason.starts_with("403 Forbidden: \\u{1b}[31mxxx") && reason.len() < 600, "{reason}");
}

/// Accepts the tunnel and sends `bytes`.
async fn send_bytes(mut host: TcpStream, bytes: &[u8]) {
    switch_protocols(&mut host).await;
    host.write_all(bytes).await.unwrap();
    // Waits until the host disconnects.
    let _ = host.read_to_end(&mut Vec::new()).await;
}

/// The header of a frame.
fn header(kind: FrameKind, body_bytes: u64) -> Vec<u8> {
    Header { number: kind as u8, body_bytes }.encode().to_vec()
}

#[tokio::test]
async fn wrong_frame_of_the_worker_is_an_error() {
    let not_cached = "the worker's first frame is not its list of cached tensors";
    let reason = tunnel_error(|host| async move {
        send_bytes(host, &[header(FrameKind::Heartbeat, 0), header(FrameKind::Reply, 0)].concat()).await;
    });
    assert_eq!(reason.await, not_cached);
    let reason = tunnel_error(|host| async move {
        send_bytes(host, &[header(FrameKind::Cached, 0), header(FrameKind::Tensor, 0)].concat()).await;
    });
    assert_eq!(reason.await, "the worker sent a frame that only hosts send");
    let reason = tunnel_error(|host| async move {
        let error = [header(FrameKind::Error, 11), b"out of\nluck".to_vec()].concat();
        send_bytes(host, &[header(FrameKind::Cached, 0), error].concat()).await;
    });
    assert_eq!(reason.await, "out of\\nluck");
}

#[tokio::test]
async fn oversized_frame_of_the_worker_is_an_error() {
    let reason =
        tunnel_error(|host| async move { send_bytes(host, &header(FrameKind::Cached, u64::MAX)).await })
            .await;
    assert!(reason.contains("Cached of 18446744073709551615 bytes"), "{reason}");
    let reason = tunnel_error(|host| async move {
        send_bytes(host, &[header(FrameKind::Cached, 0), header(FrameKind::Reply, 1 << 31)].concat()).await;
    });
    let reason = reason.await;
    assert!(reason.contains("Reply of 2147483648 bytes"), "{reason}");
    let reason = tunnel_error(|host| async move {
        send_bytes(host, &[header(FrameKind::Cached, 0), header(FrameKind::Error, 1 << 31)].concat()).await;
    });
    let reason = reason.await;
    assert!(reason.contains("Error of 2147483648 bytes"), "{reason}");
}

#[tokio::test]
async fn closed_connection_of_the_worker_is_an_error() {
    let reason = tunnel_error(|mut host| async move {
        switch_protocols(&mut host).await;
        host.write_all(&header(FrameKind::Cached, 0)).await.unwrap();
        host.shutdown().await.unwrap();
        let _ = host.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(reason.await, "the worker closed the connection");
}

#[tokio::test]
async fn missing_heartbeats_of_the_worker_are_an_error() {
    let start = std::sync::Arc::new(std::sync::OnceLock::new());
    let start_setter = start.clone();
    let port = worker_port(move |mut host| {
        let start_setter = start_setter.clone();
        async move {
            switch_protocols(&mut host).await;
            host.write_all(&header(FrameKind::Cached, 0)).await.unwrap();
            // The first command shows that the tunnel is open.
            Header::read(&mut host).await.unwrap();
            pause();
            start_setter.set(Instant::now()).unwrap();
            let _ = host.read_to_end(&mut Vec::new()).await;
        }
    });
    let port = port.await;
    let tunnel = tunnel(&port, false).await;
    let mut llama = TcpStream::connect(tunnel.address()).await.unwrap();
    llama.write_all(&rpc::encode(RpcCommand::DeviceCount, &[])).await.unwrap();
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
