use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, pause, sleep, timeout};

use super::*;
use crate::protocol::{BEAT, SILENCE};
use crate::testing::{
    GET_TENSOR, NO_MEMORY, RpcServer, allocation, command, connected, noise, rpc_server, tensor,
};

/// A tunnel whose host is the test.
struct Host {
    wire: DuplexStream,
    server: RpcServer,
    memory: Arc<Allowance>,
    /// The digests that the worker announced.
    kept: Vec<u8>,
    serving: JoinHandle<io::Result<()>>,
}

impl Host {
    async fn open(cache: Option<Arc<Cache>>, memory: u64) -> Self {
        let (wire, far) = duplex(1 << 20);
        let (connection, server) = rpc_server().await;
        let memory = Arc::new(Allowance::new(memory));
        let serving = tokio::spawn(serve_tunnel(far, connection, cache, memory.clone()));
        let mut host = Self { wire, server, memory, kept: Vec::new(), serving };
        host.kept = host.receive(Kind::Kept).await;
        host
    }

    async fn send(&mut self, kind: Kind, body: &[u8]) {
        write(&mut self.wire, kind, &[body]).await.unwrap();
    }

    /// The body of the next frame that is not a beat.
    async fn receive(&mut self, kind: Kind) -> Vec<u8> {
        loop {
            let frame = Message::read(&mut self.wire).await.unwrap().unwrap();
            if frame.frame() != Some(Kind::Beat) {
                assert_eq!(frame.frame(), Some(kind), "{:?}", String::from_utf8_lossy(&frame.body));
                return frame.body;
            }
        }
    }

    /// Allocates, and returns the server's name of the buffer: 0 where it failed.
    async fn allocate(&mut self, bytes: u64) -> u64 {
        self.send(Kind::Command, &allocation(bytes)).await;
        let answer = self.receive(Kind::Answer).await;
        assert_eq!((answer.len(), number(&answer, 0)), (24, Some(16)));
        number(&answer, 8).unwrap()
    }

    fn used(&self) -> u64 {
        self.memory.now().1
    }

    /// The worker's own error, which it also sent.
    async fn fault(mut self) -> String {
        let sent = String::from_utf8(self.receive(Kind::Fault).await).unwrap();
        let error = self.serving.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), sent);
        sent
    }
}

fn cache(folder: &tempfile::TempDir) -> Arc<Cache> {
    Arc::new(Cache::new(folder.path().to_owned(), 1 << 20).unwrap())
}

#[tokio::test]
async fn commands_and_answers_pass_unchanged() {
    let mut host = Host::open(None, 0).await;
    for size in [0, 1, 3 * PIECE + 5] {
        let body = noise(7, size);
        host.send(Kind::Command, &command(GET_TENSOR, &body)).await;
        let passed = host.server.commands.recv().await.unwrap();
        assert!((passed.kind, &passed.body) == (GET_TENSOR, &body), "a command of {size} bytes");
        let answer = host.receive(Kind::Answer).await;
        assert!(answer == [&(size as u64).to_le_bytes()[..], &body].concat(), "an answer of {size} bytes");
    }
    drop(host.wire);
    host.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tensor_that_was_kept_is_found_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let mut body = tensor(&noise(1, 10_000));
    let digest: [u8; 32] = Sha256::digest(&body[TENSOR_HEAD..]).into();
    let mut host = Host::open(Some(cache(&folder)), 0).await;
    assert!(host.kept.is_empty());
    host.send(Kind::Keep, &body).await;
    // The server itself must not keep the tensor.
    body[CACHE_FLAG] = 0;
    let first = host.server.commands.recv().await.unwrap();
    assert!(first.kind == command::SET_TENSOR && first.body == body);
    drop(host.wire);
    host.serving.await.unwrap().unwrap();

    let mut host = Host::open(Some(cache(&folder)), 0).await;
    assert_eq!(host.kept, digest);
    host.send(Kind::Known, &[&body[..TENSOR_HEAD], &digest].concat()).await;
    let second = host.server.commands.recv().await.unwrap();
    assert!(second.kind == command::SET_TENSOR && second.body == body);
}

#[tokio::test]
async fn memory_is_reserved_and_given_back() {
    let mut host = Host::open(None, 1000).await;
    let buffer = host.allocate(600).await;
    assert_eq!((buffer, host.used()), (1, 600));
    assert_eq!((host.allocate(401).await, host.used()), (0, 600));
    assert_eq!((host.allocate(u64::MAX).await, host.used()), (0, 600));
    assert_eq!((host.allocate(400).await, host.used()), (2, 1000));
    host.send(Kind::Command, &command(command::FREE_BUFFER, &buffer.to_le_bytes())).await;
    assert_eq!((host.receive(Kind::Answer).await, host.used()), (vec![0; 8], 400));
    assert_eq!((host.allocate(NO_MEMORY).await, host.used()), (0, 400));
    let asked = std::iter::from_fn(|| host.server.commands.try_recv().ok());
    let allocations = asked.filter(|asked| asked.kind == command::ALLOC_BUFFER);
    assert_eq!(allocations.count(), 3, "refused allocations do not reach the server");
    let memory = host.memory.clone();
    drop(host.wire);
    host.serving.await.unwrap().unwrap();
    assert_eq!(memory.now(), (1000, 0));
}

#[test]
fn a_second_allocation_before_the_answer_is_an_error_and_keeps_no_memory() {
    let memory = Arc::new(Allowance::new(1000));
    let ledger = Ledger { memory: memory.clone(), pending: Mutex::default(), buffers: Mutex::default() };
    assert!(ledger.ask(300).unwrap());
    assert!(ledger.ask(200).is_err());
    assert_eq!(memory.now(), (1000, 300));
    drop(ledger);
    assert_eq!(memory.now(), (1000, 0));
}

#[test]
fn a_buffer_name_that_comes_again_replaces_the_first() {
    let memory = Arc::new(Allowance::new(1000));
    let ledger = Ledger { memory: memory.clone(), pending: Mutex::default(), buffers: Mutex::default() };
    for bytes in [300, 200] {
        assert!(ledger.ask(bytes).unwrap());
        ledger.answered(&7_u64.to_le_bytes());
    }
    assert_eq!(memory.now(), (1000, 200));
    ledger.freed(7);
    assert_eq!(memory.now(), (1000, 0));
}

#[tokio::test]
async fn a_malformed_frame_ends_the_tunnel_and_says_why() {
    let head = tensor(&[]);
    let cases: [(u8, Vec<u8>, &str); 7] = [
        (77, vec![], "only workers send"),
        (Kind::Answer as u8, vec![1], "only workers send"),
        (Kind::Fault as u8, vec![1], "only workers send"),
        (Kind::Graph as u8, vec![1, 2], "a graph cannot be read"),
        (Kind::Known as u8, vec![1, 2], "no longer in the cache"),
        (Kind::Known as u8, [head.as_slice(), &[5; 31]].concat(), "no longer in the cache"),
        (Kind::Known as u8, [head.as_slice(), &[5; 32]].concat(), "no longer in the cache"),
    ];
    for (kind, body, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Host::open(Some(cache(&folder)), 0).await;
        host.wire.write_all(&command(kind, &body)).await.unwrap();
        let fault = host.fault().await;
        assert!(fault.contains(reason), "frame {kind}: {fault}");
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_or_cut_ends_the_tunnel() {
    let mut host = Host::open(None, 0).await;
    host.wire.write_all(&[&[1][..], &u64::MAX.to_le_bytes()].concat()).await.unwrap();
    let fault = host.fault().await;
    assert!(fault.contains("18446744073709551615 bytes"), "{fault}");

    let mut host = Host::open(None, 0).await;
    host.wire.write_all(&[1, 200, 0, 0, 0, 0, 0, 0, 0, 5]).await.unwrap();
    host.wire.shutdown().await.unwrap();
    let serving = host.serving.await.unwrap();
    assert_eq!(serving.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn commands_too_short_to_read_do_not_panic() {
    for body in [&[][..], &[command::FREE_BUFFER], &[command::FREE_BUFFER, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]] {
        let mut host = Host::open(None, 10).await;
        host.send(Kind::Command, body).await;
        drop(host.wire);
        host.serving.await.unwrap().unwrap();
    }
    let mut host = Host::open(None, 10).await;
    host.send(Kind::Command, &[command::ALLOC_BUFFER]).await;
    assert_eq!(number(&host.receive(Kind::Answer).await, 8), Some(0));
    assert_eq!(host.used(), 0);
}

#[tokio::test]
async fn the_end_of_the_server_is_reported() {
    let mut host = Host::open(None, 100).await;
    host.allocate(60).await;
    let memory = host.memory.clone();
    let (_, server) = rpc_server().await;
    drop(std::mem::replace(&mut host.server, server));
    assert_eq!(host.fault().await, "the RPC server ended");
    assert_eq!(memory.now(), (100, 0));
}

#[tokio::test]
async fn a_silent_host_is_found() {
    let host = Host::open(None, 0).await;
    pause();
    let start = Instant::now();
    assert_eq!(host.fault().await, "the host is silent");
    let after = start.elapsed();
    assert!(after > SILENCE - BEAT && after < SILENCE + 3 * BEAT, "after {after:?}");
}

#[tokio::test]
async fn a_host_that_only_beats_is_not_silent() {
    let mut host = Host::open(None, 0).await;
    pause();
    for _ in 0..30 {
        host.send(Kind::Beat, &[]).await;
        sleep(BEAT).await;
    }
    host.send(Kind::Command, &command(GET_TENSOR, b"still here")).await;
    assert!(host.receive(Kind::Answer).await.ends_with(b"still here"));
}

#[tokio::test]
async fn a_busy_server_is_not_a_silent_host() {
    let (mut wire, far) = duplex(32 << 20);
    let (connection, busy_server) = connected().await;
    let serving = tokio::spawn(serve_tunnel(far, connection, None, Arc::new(Allowance::new(0))));
    pause();
    // More than the buffers of the connection to the server hold.
    write(&mut wire, Kind::Command, &[&command(99, &noise(3, 16 << 20))]).await.unwrap();
    let ended = timeout(10 * SILENCE + Duration::from_millis(1), serving).await;
    assert!(ended.is_err(), "{ended:?}");
    drop(busy_server);
}
