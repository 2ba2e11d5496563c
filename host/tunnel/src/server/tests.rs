use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, pause, resume};

use super::*;
use crate::protocol::{HEARTBEAT_INTERVAL, MAX_PART_BYTES};
use crate::rpc::{self, CACHE_FLAG_OFFSET, Header, RpcCommand, TENSOR_HEADER_BYTES, number_at, read_body};
use crate::testing::{
    REFUSED_BYTES, RpcServer, alloc_command, get_tensor, graph, noise, rpc_server, stored_data, tcp_pair,
    tensor,
};

mod limits;

/// A tunnel with the test as its host.
struct Host {
    wire: DuplexStream,
    from_worker: DuplexStream,
    server: RpcServer,
    quota: Arc<MemoryQuota>,
    /// The digests that the worker announced.
    cached: Vec<u8>,
    serving: JoinHandle<io::Result<()>>,
}

impl Host {
    async fn open(cache: Option<Arc<TensorCache>>, quota_bytes: u64) -> Self {
        Self::with_quota(cache, Arc::new(MemoryQuota::new(quota_bytes))).await
    }

    async fn with_quota(cache: Option<Arc<TensorCache>>, quota: Arc<MemoryQuota>) -> Self {
        let (connection, server) = rpc_server().await;
        Self::with_server(connection, server, cache, quota).await
    }

    async fn with_server(
        connection: TcpStream,
        server: RpcServer,
        cache: Option<Arc<TensorCache>>,
        quota: Arc<MemoryQuota>,
    ) -> Self {
        // Two streams, so that the test can close its sending side.
        let (wire, worker_input) = duplex(1 << 20);
        let (worker_output, from_worker) = duplex(1 << 20);
        let worker_end = tokio::io::join(worker_input, worker_output);
        let serving = tokio::spawn(serve_tunnel(worker_end, connection, cache, quota.clone()));
        let mut host = Self { wire, from_worker, server, quota, cached: Vec::new(), serving };
        host.cached = host.receive(FrameKind::Cached).await;
        host
    }

    async fn send(&mut self, kind: FrameKind, body: &[u8]) {
        FrameWriter::new(&mut self.wire).write(kind, &[body]).await.unwrap();
    }

    async fn command(&mut self, command: RpcCommand, body: &[u8]) {
        self.send(FrameKind::Command, &rpc::encode(command, body)).await;
    }

    /// The body of the next frame that is not a heartbeat.
    async fn receive(&mut self, kind: FrameKind) -> Vec<u8> {
        loop {
            let header = Header::read(&mut self.from_worker).await.unwrap().unwrap();
            let body = read_body(&mut self.from_worker, header.body_bytes).await.unwrap();
            if FrameKind::of(header) != Some(FrameKind::Heartbeat) {
                assert_eq!(FrameKind::of(header), Some(kind), "{:?}", String::from_utf8_lossy(&body));
                return body;
            }
        }
    }

    /// The next reply, whose length comes first.
    async fn reply(&mut self) -> Vec<u8> {
        let mut reply = self.receive(FrameKind::Reply).await;
        let total = 8 + usize::try_from(number_at(&reply, 0).unwrap()).unwrap();
        while reply.len() < total {
            let part = self.receive(FrameKind::Reply).await;
            assert!(part.len() as u64 <= MAX_PART_BYTES);
            reply.extend(part);
        }
        assert_eq!(reply.len(), total);
        reply.split_off(8)
    }

    /// Allocates a buffer. Returns the server's id of the buffer: 0 if the allocation failed.
    async fn allocate(&mut self, bytes: u64) -> u64 {
        self.send(FrameKind::Command, &alloc_command(bytes)).await;
        number_at(&self.reply().await, 0).unwrap()
    }

    /// Exchanges heartbeats for longer than a heartbeat timeout.
    async fn check_heartbeats(&mut self) {
        pause();
        for _ in 0..20 {
            self.send(FrameKind::Heartbeat, &[]).await;
            // Timers have a resolution of a millisecond.
            advance(HEARTBEAT_INTERVAL + Duration::from_millis(2)).await;
            let header = Header::read(&mut self.from_worker).await.unwrap().unwrap();
            assert_eq!(FrameKind::of(header), Some(FrameKind::Heartbeat));
        }
        resume();
    }

    fn used(&self) -> u64 {
        self.quota.usage().1
    }

    /// The error that the worker returned and sent.
    async fn error(mut self) -> String {
        let sent = String::from_utf8(self.receive(FrameKind::Error).await).unwrap();
        let error = self.serving.await.unwrap().unwrap_err();
        assert_eq!((error.to_string(), self.quota.usage().1), (sent.clone(), 0));
        sent
    }

    /// Closes the tunnel, which must end without an error.
    async fn close(self) {
        drop(self.wire);
        self.serving.await.unwrap().unwrap();
        assert_eq!(self.quota.usage().1, 0);
    }
}

fn cache(folder: &tempfile::TempDir) -> Arc<TensorCache> {
    Arc::new(TensorCache::new(folder.path().to_owned(), 1 << 30).unwrap())
}

#[tokio::test]
async fn tunnel_relays_commands_and_replies_unchanged() {
    let mut host = Host::open(None, 100).await;
    for command in RpcCommand::ALL {
        let special = [RpcCommand::SetTensorHash, RpcCommand::FreeBuffer, RpcCommand::AllocBuffer];
        let Some(bytes) = command.body_bytes().filter(|_| !special.contains(&command)) else { continue };
        let mut body = noise(7, usize::try_from(bytes).unwrap());
        if command == RpcCommand::GetTensor {
            body = get_tensor(3, 0);
        }
        host.command(command, &body).await;
        let relayed = host.server.commands.recv().await.unwrap();
        assert_eq!((relayed.command, relayed.body), (command, body));
        if let Some(bytes) = command.reply_bytes() {
            assert_eq!(host.reply().await, vec![7; usize::try_from(bytes).unwrap()], "{command:?}");
        }
        if command == RpcCommand::GetTensor {
            assert!(host.reply().await.is_empty());
        }
    }
    let graph = graph(3, 5, 1);
    let encoded = crate::graph::GraphCodec::default().encode(graph.clone()).unwrap();
    host.send(FrameKind::Graph, &encoded).await;
    let relayed = host.server.commands.recv().await.unwrap();
    assert!(relayed.command == RpcCommand::GraphCompute && relayed.body == graph);
    host.close().await;
}

#[tokio::test]
async fn tensors_travel_in_parts_in_both_directions() {
    let mut host = Host::open(None, 4 << 20).await;
    host.allocate(4 << 20).await;
    host.server.commands.recv().await.unwrap();
    for (bytes, expected_parts) in [(1, 1), (1 << 20, 1), ((3 << 20) + 5, 4)] {
        let body = tensor(&noise(3, bytes));
        host.command(RpcCommand::SetTensor, &body).await;
        let (_, data, parts) = host.server.tensor(bytes).await;
        assert!(
            data == body[TENSOR_HEADER_BYTES..] && parts == expected_parts,
            "{bytes} bytes, {parts} parts"
        );
        host.command(RpcCommand::GetTensor, &get_tensor(77, bytes as u64)).await;
        assert!(host.reply().await == stored_data(77, bytes as u64), "{bytes} bytes");
        for _ in 0..expected_parts {
            assert_eq!(host.server.commands.recv().await.unwrap().command, RpcCommand::GetTensor);
        }
    }
    // A tensor without data.
    host.command(RpcCommand::SetTensor, &tensor(&[])).await;
    assert_eq!(host.server.commands.recv().await.unwrap().body.len(), TENSOR_HEADER_BYTES);
    host.close().await;
}

#[tokio::test]
async fn cached_tensor_is_found_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let data = noise(1, (2 << 20) + 9);
    let body = tensor(&data);
    let digest: [u8; 32] = Sha256::digest(&data).into();
    let mut host = Host::open(Some(cache(&folder)), 4 << 20).await;
    assert!(host.cached.is_empty());
    host.allocate(4 << 20).await;
    host.server.commands.recv().await.unwrap();
    host.send(FrameKind::Tensor, &body).await;
    let (header, received, _) = host.server.tensor(data.len()).await;
    // The RPC server must not cache the tensor itself.
    let mut expected = body[..TENSOR_HEADER_BYTES].to_vec();
    expected[CACHE_FLAG_OFFSET] = 0;
    assert!(header == expected && received == data);
    host.close().await;

    let mut host = Host::open(Some(cache(&folder)), 4 << 20).await;
    assert_eq!(host.cached, digest);
    host.allocate(4 << 20).await;
    host.server.commands.recv().await.unwrap();
    host.send(FrameKind::TensorRef, &[&body[..TENSOR_HEADER_BYTES], &digest].concat()).await;
    let (header, received, parts) = host.server.tensor(data.len()).await;
    assert!(header == expected && received == data && parts == 3);
    host.close().await;
}

#[tokio::test]
async fn changed_tensor_ends_the_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let digest = [5; 32];
    std::fs::write(folder.path().join(tightwad_core::to_hex(&digest)), b"changed").unwrap();
    let mut host = Host::open(Some(cache(&folder)), 100).await;
    assert_eq!(host.cached, digest);
    host.allocate(100).await;
    host.send(FrameKind::TensorRef, &[&tensor(&[])[..], &digest].concat()).await;
    assert!(host.error().await.contains("no longer in the cache"));
    assert!(Host::open(Some(cache(&folder)), 100).await.cached.is_empty());
}

#[tokio::test]
async fn memory_is_reserved_and_released() {
    let mut host = Host::open(None, 1000).await;
    let buffer = host.allocate(600).await;
    assert_eq!((buffer, host.used()), (1, 600));
    assert_eq!((host.allocate(401).await, host.used()), (0, 600));
    assert_eq!((host.allocate(u64::MAX).await, host.used()), (0, 600));
    assert_eq!((host.allocate(400).await, host.used()), (2, 1000));
    host.command(RpcCommand::FreeBuffer, &buffer.to_le_bytes()).await;
    assert_eq!((host.allocate(REFUSED_BYTES).await, host.used()), (0, 400));
    let relayed = std::iter::from_fn(|| host.server.commands.try_recv().ok());
    let allocations = relayed.filter(|received| received.command == RpcCommand::AllocBuffer);
    assert_eq!(allocations.count(), 3, "refused allocations do not reach the server");
    host.close().await;
}

#[tokio::test]
async fn replies_belong_to_their_commands() {
    let mut host = Host::open(None, 1000).await;
    // All commands are sent before the first reply. The reply to HELLO must not count as a buffer.
    host.command(RpcCommand::Hello, &[0; 24]).await;
    for bytes in [300, 2000, 200] {
        host.send(FrameKind::Command, &alloc_command(bytes)).await;
    }
    host.command(RpcCommand::GetAlignment, &[0; 4]).await;
    assert_eq!(host.reply().await.len(), 28);
    let buffers = [host.reply().await, host.reply().await, host.reply().await];
    let ids = buffers.map(|reply| number_at(&reply, 0).unwrap());
    assert_eq!((ids, host.used()), ([1, 0, 2], 500));
    assert_eq!(host.reply().await.len(), 8);
    for buffer in [1_u64, 2] {
        host.command(RpcCommand::FreeBuffer, &buffer.to_le_bytes()).await;
    }
    host.command(RpcCommand::GetMaxSize, &[0; 4]).await;
    host.reply().await;
    assert_eq!(host.used(), 0);
    host.close().await;
}

#[tokio::test]
async fn end_of_the_rpc_server_is_reported() {
    let mut host = Host::open(None, 100).await;
    host.allocate(60).await;
    let (_, server) = rpc_server().await;
    drop(std::mem::replace(&mut host.server, server));
    assert_eq!(host.error().await, "the RPC server ended");
}

#[tokio::test]
async fn missing_heartbeats_of_the_host_end_the_tunnel() {
    let host = Host::open(None, 0).await;
    pause();
    let start = Instant::now();
    assert_eq!(host.error().await, "no heartbeat from the host for 12 s");
    let elapsed = start.elapsed();
    let (earliest, latest) =
        (HEARTBEAT_TIMEOUT - HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT + 3 * HEARTBEAT_INTERVAL);
    assert!(elapsed > earliest && elapsed < latest, "after {elapsed:?}");
}

#[tokio::test]
async fn host_that_neither_reads_nor_sends_ends_the_tunnel() {
    let (mut wire, worker_end) = duplex(64);
    let (connection, _server) = rpc_server().await;
    let quota = Arc::new(MemoryQuota::new(100));
    let serving = tokio::spawn(serve_tunnel(worker_end, connection, None, quota.clone()));
    Header::read(&mut wire).await.unwrap();
    wire.write_all(&[&[1, 21][..], &[0; 7], &alloc_command(60)].concat()).await.unwrap();
    while quota.usage().1 == 0 {
        tokio::task::yield_now().await;
    }
    pause();
    let start = Instant::now();
    assert!(serving.await.unwrap().unwrap_err().to_string().contains("no heartbeat"));
    assert!(start.elapsed() < HEARTBEAT_TIMEOUT + ERROR_TIMEOUT + 3 * HEARTBEAT_INTERVAL);
    assert_eq!(quota.usage(), (100, 0));
}

#[tokio::test]
async fn heartbeats_alone_keep_the_tunnel_open() {
    let mut host = Host::open(None, 0).await;
    host.check_heartbeats().await;
    host.command(RpcCommand::DeviceCount, &[]).await;
    assert_eq!(host.reply().await.len(), 4);
}

#[tokio::test]
async fn heartbeats_continue_while_the_rpc_server_is_busy() {
    let (connection, mut busy_server) = tcp_pair().await;
    let (_, server) = rpc_server().await;
    let quota = Arc::new(MemoryQuota::new(64 << 20));
    let mut host = Host::with_server(connection, server, None, quota).await;
    host.send(FrameKind::Command, &alloc_command(64 << 20)).await;
    busy_server.write_all(&[16_u64, 1, 64 << 20].map(u64::to_le_bytes).concat()).await.unwrap();
    host.reply().await;
    // More bytes than the buffers of both connections hold.
    let body = tensor(&vec![3; 32 << 20]);
    let sending = timeout(Duration::from_millis(300), host.send(FrameKind::Tensor, &body)).await;
    assert!(sending.is_err(), "the server reads nothing");
    pause();
    for _ in 0..20 {
        advance(HEARTBEAT_INTERVAL + Duration::from_millis(2)).await;
        let header = Header::read(&mut host.from_worker).await.unwrap().unwrap();
        assert_eq!(FrameKind::of(header), Some(FrameKind::Heartbeat));
    }
    assert!(!host.serving.is_finished());
}

#[tokio::test]
async fn heartbeats_continue_while_the_disk_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder);
    let data = noise(1, 10_000);
    let digest: [u8; 32] = Sha256::digest(&data).into();
    let mut host = Host::open(Some(cache.clone()), 20_000).await;
    host.allocate(20_000).await;
    host.server.commands.recv().await.unwrap();
    let reference = [&tensor(&[])[..], &digest].concat();
    for (kind, body) in [(FrameKind::Tensor, tensor(&data)), (FrameKind::TensorRef, reference)] {
        let disk = cache.disk.lock().await;
        host.send(kind, &body).await;
        host.check_heartbeats().await;
        drop(disk);
        host.command(RpcCommand::DeviceCount, &[]).await;
        assert_eq!(host.server.tensor(data.len()).await.1, data);
        host.reply().await;
        host.server.commands.recv().await.unwrap();
    }
    host.close().await;
}
