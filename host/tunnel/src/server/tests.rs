use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, pause, sleep, timeout};

use super::*;
use crate::protocol::HEARTBEAT_INTERVAL;
use crate::testing::{
    GET_TENSOR, REFUSED_BYTES, RpcServer, alloc_command, command, noise, rpc_server, tcp_pair, tensor,
};

/// A tunnel with the test as its host.
struct Host {
    wire: DuplexStream,
    server: RpcServer,
    quota: Arc<MemoryQuota>,
    /// The digests that the worker announced.
    cached: Vec<u8>,
    serving: JoinHandle<io::Result<()>>,
}

impl Host {
    async fn open(cache: Option<Arc<TensorCache>>, quota_bytes: u64) -> Self {
        let (wire, worker_end) = duplex(1 << 20);
        let (connection, server) = rpc_server().await;
        let quota = Arc::new(MemoryQuota::new(quota_bytes));
        let serving = tokio::spawn(serve_tunnel(worker_end, connection, cache, quota.clone()));
        let mut host = Self { wire, server, quota, cached: Vec::new(), serving };
        host.cached = host.receive(FrameKind::Cached).await;
        host
    }

    async fn send(&mut self, kind: FrameKind, body: &[u8]) {
        write_frame(&mut self.wire, kind, &[body]).await.unwrap();
    }

    /// The body of the next frame that is not a heartbeat.
    async fn receive(&mut self, kind: FrameKind) -> Vec<u8> {
        loop {
            let frame = Message::read(&mut self.wire).await.unwrap().unwrap();
            if frame.frame_kind() != Some(FrameKind::Heartbeat) {
                assert_eq!(frame.frame_kind(), Some(kind), "{:?}", String::from_utf8_lossy(&frame.body));
                return frame.body;
            }
        }
    }

    /// Allocates a buffer. Returns the server's id of the buffer: 0 if the allocation failed.
    async fn allocate(&mut self, bytes: u64) -> u64 {
        self.send(FrameKind::Command, &alloc_command(bytes)).await;
        let reply = self.receive(FrameKind::Reply).await;
        assert_eq!((reply.len(), number(&reply, 0)), (24, Some(16)));
        number(&reply, 8).unwrap()
    }

    fn used(&self) -> u64 {
        self.quota.usage().1
    }

    /// The error that the worker returned and sent.
    async fn error(mut self) -> String {
        let sent = String::from_utf8(self.receive(FrameKind::Error).await).unwrap();
        let error = self.serving.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), sent);
        sent
    }
}

fn cache(folder: &tempfile::TempDir) -> Arc<TensorCache> {
    Arc::new(TensorCache::new(folder.path().to_owned(), 1 << 20).unwrap())
}

#[tokio::test]
async fn tunnel_relays_commands_and_replies_unchanged() {
    let mut host = Host::open(None, 0).await;
    for size in [0, 1, 3 * READ_BUFFER_BYTES + 5] {
        let body = noise(7, size);
        host.send(FrameKind::Command, &command(GET_TENSOR, &body)).await;
        let relayed = host.server.commands.recv().await.unwrap();
        assert!((relayed.kind, &relayed.body) == (GET_TENSOR, &body), "a command of {size} bytes");
        let reply = host.receive(FrameKind::Reply).await;
        assert!(reply == [&(size as u64).to_le_bytes()[..], &body].concat(), "a reply of {size} bytes");
    }
    drop(host.wire);
    host.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn cached_tensor_is_found_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let mut body = tensor(&noise(1, 10_000));
    let digest: [u8; 32] = Sha256::digest(&body[TENSOR_HEADER_BYTES..]).into();
    let mut host = Host::open(Some(cache(&folder)), 0).await;
    assert!(host.cached.is_empty());
    host.send(FrameKind::Tensor, &body).await;
    // The RPC server must not cache the tensor itself.
    body[CACHE_FLAG_OFFSET] = 0;
    let first = host.server.commands.recv().await.unwrap();
    assert!(first.kind == command::SET_TENSOR && first.body == body);
    drop(host.wire);
    host.serving.await.unwrap().unwrap();

    let mut host = Host::open(Some(cache(&folder)), 0).await;
    assert_eq!(host.cached, digest);
    host.send(FrameKind::TensorRef, &[&body[..TENSOR_HEADER_BYTES], &digest].concat()).await;
    let second = host.server.commands.recv().await.unwrap();
    assert!(second.kind == command::SET_TENSOR && second.body == body);
}

#[tokio::test]
async fn memory_is_reserved_and_released() {
    let mut host = Host::open(None, 1000).await;
    let buffer = host.allocate(600).await;
    assert_eq!((buffer, host.used()), (1, 600));
    assert_eq!((host.allocate(401).await, host.used()), (0, 600));
    assert_eq!((host.allocate(u64::MAX).await, host.used()), (0, 600));
    assert_eq!((host.allocate(400).await, host.used()), (2, 1000));
    host.send(FrameKind::Command, &command(command::FREE_BUFFER, &buffer.to_le_bytes())).await;
    assert_eq!((host.receive(FrameKind::Reply).await, host.used()), (vec![0; 8], 400));
    assert_eq!((host.allocate(REFUSED_BYTES).await, host.used()), (0, 400));
    let relayed = std::iter::from_fn(|| host.server.commands.try_recv().ok());
    let allocations = relayed.filter(|message| message.kind == command::ALLOC_BUFFER);
    assert_eq!(allocations.count(), 3, "refused allocations do not reach the server");
    let quota = host.quota.clone();
    drop(host.wire);
    host.serving.await.unwrap().unwrap();
    assert_eq!(quota.usage(), (1000, 0));
}

#[test]
fn second_allocation_before_the_reply_is_an_error_and_reserves_nothing() {
    let quota = Arc::new(MemoryQuota::new(1000));
    let reservations =
        Reservations { quota: quota.clone(), pending: Mutex::default(), buffers: Mutex::default() };
    assert!(reservations.begin(300).unwrap());
    assert!(reservations.begin(200).is_err());
    assert_eq!(quota.usage(), (1000, 300));
    drop(reservations);
    assert_eq!(quota.usage(), (1000, 0));
}

#[test]
fn repeated_buffer_id_replaces_the_first_reservation() {
    let quota = Arc::new(MemoryQuota::new(1000));
    let reservations =
        Reservations { quota: quota.clone(), pending: Mutex::default(), buffers: Mutex::default() };
    for bytes in [300, 200] {
        assert!(reservations.begin(bytes).unwrap());
        reservations.complete(&7_u64.to_le_bytes());
    }
    assert_eq!(quota.usage(), (1000, 200));
    reservations.free(7);
    assert_eq!(quota.usage(), (1000, 0));
}

#[tokio::test]
async fn malformed_frame_ends_the_tunnel_with_its_reason() {
    let header = tensor(&[]);
    let cases: [(u8, Vec<u8>, &str); 7] = [
        (77, vec![], "only workers send"),
        (FrameKind::Reply as u8, vec![1], "only workers send"),
        (FrameKind::Error as u8, vec![1], "only workers send"),
        (FrameKind::Graph as u8, vec![1, 2], "a graph cannot be decoded"),
        (FrameKind::TensorRef as u8, vec![1, 2], "no longer in the cache"),
        (FrameKind::TensorRef as u8, [header.as_slice(), &[5; 31]].concat(), "no longer in the cache"),
        (FrameKind::TensorRef as u8, [header.as_slice(), &[5; 32]].concat(), "no longer in the cache"),
    ];
    for (kind, body, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Host::open(Some(cache(&folder)), 0).await;
        host.wire.write_all(&command(kind, &body)).await.unwrap();
        let error = host.error().await;
        assert!(error.contains(reason), "frame {kind}: {error}");
    }
}

#[tokio::test]
async fn oversized_or_truncated_frame_ends_the_tunnel() {
    let mut host = Host::open(None, 0).await;
    host.wire.write_all(&[&[1][..], &u64::MAX.to_le_bytes()].concat()).await.unwrap();
    let error = host.error().await;
    assert!(error.contains("18446744073709551615 bytes"), "{error}");

    let mut host = Host::open(None, 0).await;
    host.wire.write_all(&[1, 200, 0, 0, 0, 0, 0, 0, 0, 5]).await.unwrap();
    host.wire.shutdown().await.unwrap();
    let serving = host.serving.await.unwrap();
    assert_eq!(serving.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn truncated_commands_do_not_panic() {
    for body in [&[][..], &[command::FREE_BUFFER], &[command::FREE_BUFFER, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]] {
        let mut host = Host::open(None, 10).await;
        host.send(FrameKind::Command, body).await;
        drop(host.wire);
        host.serving.await.unwrap().unwrap();
    }
    let mut host = Host::open(None, 10).await;
    host.send(FrameKind::Command, &[command::ALLOC_BUFFER]).await;
    assert_eq!(number(&host.receive(FrameKind::Reply).await, 8), Some(0));
    assert_eq!(host.used(), 0);
}

#[tokio::test]
async fn end_of_the_rpc_server_is_reported() {
    let mut host = Host::open(None, 100).await;
    host.allocate(60).await;
    let quota = host.quota.clone();
    let (_, server) = rpc_server().await;
    drop(std::mem::replace(&mut host.server, server));
    assert_eq!(host.error().await, "the RPC server ended");
    assert_eq!(quota.usage(), (100, 0));
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
async fn heartbeats_alone_keep_the_tunnel_open() {
    let mut host = Host::open(None, 0).await;
    pause();
    for _ in 0..30 {
        host.send(FrameKind::Heartbeat, &[]).await;
        sleep(HEARTBEAT_INTERVAL).await;
    }
    host.send(FrameKind::Command, &command(GET_TENSOR, b"still here")).await;
    assert!(host.receive(FrameKind::Reply).await.ends_with(b"still here"));
}

#[tokio::test]
async fn busy_rpc_server_does_not_end_the_tunnel() {
    let (mut wire, worker_end) = duplex(32 << 20);
    let (connection, busy_server) = tcp_pair().await;
    let quota = Arc::new(MemoryQuota::new(0));
    let serving = tokio::spawn(serve_tunnel(worker_end, connection, None, quota));
    pause();
    // More bytes than the buffers of the connection to the server hold.
    write_frame(&mut wire, FrameKind::Command, &[&command(99, &noise(3, 16 << 20))]).await.unwrap();
    let ended = timeout(10 * HEARTBEAT_TIMEOUT + Duration::from_millis(1), serving).await;
    assert!(ended.is_err(), "{ended:?}");
    drop(busy_server);
}
