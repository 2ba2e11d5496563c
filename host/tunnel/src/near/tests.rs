use tokio::io::AsyncReadExt;
use tokio::time::{Instant, pause};

use super::*;
use crate::cache::Cache;
use crate::far::{Allowance, serve_tunnel};
use crate::protocol::{BEAT, SILENCE};
use crate::testing::{
    GET_TENSOR, RpcServer, WorkerPort, allocation, command, noise, rpc_server, switch_protocols, tensor,
    worker_port,
};

/// llama.cpp's connection through both ends of a tunnel.
struct Load {
    llama: TcpStream,
    server: RpcServer,
    tunnel: Tunnel,
    _port: WorkerPort,
}

impl Load {
    async fn open(cache: Option<Arc<Cache>>, on_processor: bool) -> Self {
        let (connection, server) = rpc_server().await;
        let connection = std::sync::Mutex::new(Some(connection));
        let port = worker_port(move |mut host| {
            let connection = connection.lock().unwrap().take().unwrap();
            let cache = cache.clone();
            async move {
                switch_protocols(&mut host).await;
                let _ = serve_tunnel(host, connection, cache, Arc::new(Allowance::new(1000))).await;
            }
        });
        let port = port.await;
        let tunnel = tunnel(&port, on_processor).await;
        let llama = TcpStream::connect(tunnel.address()).await.unwrap();
        Self { llama, server, tunnel, _port: port }
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        self.llama.write_all(&command(kind, body)).await.unwrap();
    }

    async fn answer(&mut self) -> Vec<u8> {
        let length = self.llama.read_u64_le().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.llama.read_exact(&mut body).await.unwrap();
        body
    }

    /// Sends a tensor, and returns what the server received.
    async fn set_tensor(&mut self, body: &[u8]) -> Vec<u8> {
        self.send(command::SET_TENSOR, body).await;
        let received = self.server.commands.recv().await.unwrap();
        assert_eq!(received.kind, command::SET_TENSOR);
        received.body
    }

    fn sent(&self) -> u64 {
        self.tunnel.meter().sent.load(Ordering::Relaxed)
    }
}

async fn tunnel(port: &WorkerPort, on_processor: bool) -> Tunnel {
    let http = tightwad_net::machine_client().build().unwrap();
    let url = format!("http://{}", port.address);
    Tunnel::open(http, FarEnd { url, token: None, on_processor }).await.unwrap()
}

/// The fault of a tunnel to a worker that does `script` with its connection.
async fn fault_of<F>(script: fn(TcpStream) -> F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let port = worker_port(script).await;
    let tunnel = tunnel(&port, false).await;
    let _llama = TcpStream::connect(tunnel.address()).await.unwrap();
    let TunnelFault(reason) = tunnel.watch().broken().await;
    assert_eq!(tunnel.fault(), Some(TunnelFault(reason.clone())));
    reason
}

#[tokio::test]
async fn bytes_pass_unchanged_both_ways() {
    let mut load = Load::open(None, false).await;
    load.llama.write_all(&allocation(500)).await.unwrap();
    assert_eq!(load.answer().await, [1, 500].map(u64::to_le_bytes).concat());
    assert_eq!(load.server.commands.recv().await.unwrap().bytes(), allocation(500));
    for size in [0, 1, 2 * PIECE + 1] {
        let body = noise(5, size);
        load.send(GET_TENSOR, &body).await;
        assert!(load.answer().await == body, "an answer of {size} bytes");
        assert!(load.server.commands.recv().await.unwrap().body == body, "a command of {size} bytes");
    }
    let received = load.tunnel.meter().received.load(Ordering::Relaxed);
    assert!(load.sent() > 2 * PIECE as u64 && received > 2 * PIECE as u64);
    assert_eq!(load.tunnel.fault(), None);
}

#[tokio::test]
async fn a_second_load_sends_digests_only() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::new(folder.path().to_owned(), 1 << 30).unwrap());
    let tensors: Vec<Vec<u8>> = (1..=3).map(|seed| tensor(&noise(seed, 50_000))).collect();
    let mut sent = Vec::new();
    for _ in 0..2 {
        let mut load = Load::open(Some(cache.clone()), false).await;
        for tensor in &tensors {
            let received = load.set_tensor(tensor).await;
            assert!(received[TENSOR_HEAD..] == tensor[TENSOR_HEAD..]);
        }
        load.send(GET_TENSOR, &[]).await;
        load.answer().await;
        sent.push((load.sent(), load.tunnel.meter().known.load(Ordering::Relaxed)));
    }
    assert!(sent[0].0 > 150_000 && sent[0].1 == 0, "{sent:?}");
    assert!(sent[1].0 < 2_000 && sent[1].1 == 150_000, "{sent:?}");
}

#[tokio::test]
async fn small_tensors_and_tensors_after_the_first_pass_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::new(folder.path().to_owned(), 1 << 30).unwrap());
    let mut load = Load::open(Some(cache.clone()), false).await;
    let (small, large) = (tensor(&noise(1, SMALLEST - 1)), tensor(&noise(2, SMALLEST)));
    assert_eq!(load.set_tensor(&small).await, small);
    load.send(command::GRAPH_RECOMPUTE, &[]).await;
    load.server.commands.recv().await.unwrap();
    assert_eq!(load.set_tensor(&large).await, large);
    assert_eq!(cache.bytes(), 0);
}

#[tokio::test]
async fn a_graph_like_the_last_one_is_sent_as_the_difference() {
    let mut load = Load::open(None, false).await;
    let mut graph = noise(9, 100_000);
    let mut sent = Vec::new();
    for round in 0..3 {
        let before = load.sent();
        graph[500] = round;
        load.send(command::GRAPH_COMPUTE, &graph).await;
        let received = load.server.commands.recv().await.unwrap();
        assert!(received.kind == command::GRAPH_COMPUTE && received.body == graph, "round {round}");
        sent.push(load.sent() - before);
    }
    assert!(sent[0] > 50_000 && sent[1] < 200 && sent[2] < 200, "{sent:?}");
}

#[tokio::test]
async fn some_questions_are_answered_here() {
    let mut load = Load::open(None, true).await;
    load.send(command::SET_TENSOR_HASH, &[7; 32]).await;
    assert_eq!(load.answer().await, [0], "the worker does not have the tensor");
    // One number of the kind F32.
    let mut question = vec![0; 3300];
    question[24..56].copy_from_slice(&[1_u32, 1, 1, 1, 4, 4, 4, 4].map(u32::to_le_bytes).concat());
    load.send(command::GET_ALLOC_SIZE, &question).await;
    assert_eq!(load.answer().await, 4_u64.to_le_bytes());
    load.send(GET_TENSOR, b"the next").await;
    assert_eq!(load.server.commands.recv().await.unwrap().body, b"the next");
}

#[tokio::test]
async fn the_end_of_llama_is_not_a_fault() {
    let Load { llama, mut server, tunnel, _port } = Load::open(None, false).await;
    drop(llama);
    assert!(server.commands.recv().await.is_none());
    assert_eq!(tunnel.fault(), None);
}

#[tokio::test]
async fn a_worker_that_refuses_is_quoted() {
    let reason = fault_of(|mut host| async move {
        let body = r#"{"error": {"message": "4 pools use this worker"}}"#;
        let head = format!("HTTP/1.1 429 Too Many Requests\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        host.write_all(head.as_bytes()).await.unwrap();
    });
    assert_eq!(reason.await, "429 Too Many Requests: 4 pools use this worker");
}

#[tokio::test]
async fn a_worker_that_breaks_the_protocol_is_a_fault() {
    async fn script(mut host: TcpStream, frames: &[(Kind, &[u8])]) {
        switch_protocols(&mut host).await;
        for (kind, body) in frames {
            write(&mut host, *kind, &[body]).await.unwrap();
        }
        // Until the host leaves.
        let _ = host.read_to_end(&mut Vec::new()).await;
    }
    let reason = fault_of(|host| script(host, &[(Kind::Beat, &[])])).await;
    assert_eq!(reason, "it does not begin as a worker does");
    let reason = fault_of(|host| script(host, &[(Kind::Kept, &[]), (Kind::Keep, &[1])])).await;
    assert_eq!(reason, "it sent what only hosts send");
    let reason = fault_of(|host| script(host, &[(Kind::Kept, &[]), (Kind::Fault, b"out of luck")])).await;
    assert_eq!(reason, "out of luck");
}

#[tokio::test]
async fn a_worker_that_closes_the_connection_is_a_fault() {
    let reason = fault_of(|mut host| async move {
        switch_protocols(&mut host).await;
        write(&mut host, Kind::Kept, &[]).await.unwrap();
        host.shutdown().await.unwrap();
        let _ = host.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(reason.await, "it closed the connection");
    let reason = fault_of(|mut host| async move {
        switch_protocols(&mut host).await;
        host.write_all(&[&[Kind::Kept as u8][..], &u64::MAX.to_le_bytes()].concat()).await.unwrap();
        let _ = host.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(reason.await, "a message of 18446744073709551615 bytes is none");
}

#[tokio::test]
async fn a_silent_worker_is_found() {
    let start = std::sync::Arc::new(std::sync::OnceLock::new());
    let noted = start.clone();
    let port = worker_port(move |mut host| {
        let noted = noted.clone();
        async move {
            switch_protocols(&mut host).await;
            write(&mut host, Kind::Kept, &[]).await.unwrap();
            // The first command: the tunnel is open.
            Message::read(&mut host).await.unwrap();
            pause();
            noted.set(Instant::now()).unwrap();
            let _ = host.read_to_end(&mut Vec::new()).await;
        }
    });
    let port = port.await;
    let tunnel = tunnel(&port, false).await;
    let mut llama = TcpStream::connect(tunnel.address()).await.unwrap();
    llama.write_all(&command(GET_TENSOR, &[])).await.unwrap();
    assert_eq!(tunnel.watch().broken().await, TunnelFault("it is silent".to_owned()));
    let after = start.get().unwrap().elapsed();
    assert!(after > SILENCE - BEAT && after < SILENCE + 3 * BEAT, "after {after:?}");
}

#[tokio::test]
async fn a_worker_that_does_not_open_a_tunnel_in_time_is_a_fault() {
    let reason = fault_of(|mut host| async move {
        pause();
        let _ = host.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(reason.await, "it does not open a tunnel in time");
}

#[tokio::test]
async fn a_tunnel_that_is_dropped_ends() {
    let Load { mut llama, server: _server, tunnel, _port } = Load::open(None, false).await;
    let watch = tunnel.watch();
    drop(tunnel);
    assert_eq!(watch.broken().await, TunnelFault("it was closed".to_owned()));
    assert_eq!(llama.read(&mut [0]).await.unwrap_or_default(), 0);
}
