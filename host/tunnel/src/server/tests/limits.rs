//! Hosts and RPC servers that break the protocol.

use super::*;

/// Opens a tunnel, sends `frame` and returns the error.
async fn error_of(kind: u8, body: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::open(Some(cache(&folder)), 1000).await;
    let header = Header { number: kind, body_bytes: body.len() as u64 }.encode();
    host.raw(&[&header[..], body].concat()).await;
    host.error().await
}

impl Host {
    /// Sends bytes that need not be frames.
    async fn raw(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).await.unwrap();
    }
}

#[tokio::test]
async fn frame_with_two_commands_is_refused() {
    let mut host = Host::open(None, 1000).await;
    let smuggled = [rpc::encode(RpcCommand::Hello, &[0; 24]), alloc_command(1 << 40)].concat();
    host.send(FrameKind::Command, &smuggled).await;
    let relayed = host.server.commands.try_recv();
    let error = host.error().await;
    assert!(error.contains("Hello announces 24") && error.contains("exactly one command"), "{error}");
    assert!(relayed.is_err(), "{relayed:?}");
}

#[tokio::test]
async fn malformed_frame_ends_the_tunnel_with_its_reason() {
    let header = tensor(&[]);
    let oversized = rpc::encode(RpcCommand::AllocBuffer, &[0; 16]);
    let cases: [(u8, Vec<u8>, &str); 15] = [
        (77, vec![], "unknown kind 77"),
        (FrameKind::Heartbeat as u8, vec![1], "0 to 0 bytes"),
        (FrameKind::Reply as u8, vec![1], "only workers send"),
        (FrameKind::Error as u8, vec![1], "only workers send"),
        (FrameKind::Graph as u8, vec![1, 2], "Graph of 2 bytes"),
        (FrameKind::Graph as u8, vec![255; 40], "a graph cannot be decoded"),
        (FrameKind::TensorRef as u8, vec![1, 2], "337 to 337 bytes"),
        (FrameKind::TensorRef as u8, [&header[..], &[5; 32]].concat(), "no longer in the cache"),
        (FrameKind::Tensor as u8, header[1..].to_vec(), "fewer than its header"),
        (FrameKind::Command as u8, vec![0; 8], "no complete command"),
        (FrameKind::Command as u8, vec![99, 0, 0, 0, 0, 0, 0, 0, 0], "command 99"),
        (FrameKind::Command as u8, oversized, "16 bytes instead of 12"),
        (
            FrameKind::Command as u8,
            rpc::encode(RpcCommand::GraphCompute, &[0; 12]),
            "do not send GraphCompute",
        ),
        (
            FrameKind::Command as u8,
            rpc::encode(RpcCommand::SetTensorHash, &[0; 312]),
            "do not send SetTensorHash",
        ),
        (FrameKind::Command as u8, rpc::encode(RpcCommand::FreeBuffer, &[1; 8]), "has not allocated"),
    ];
    for (kind, body, reason) in cases {
        let error = error_of(kind, &body).await;
        assert!(error.contains(reason), "frame {kind}: {error}");
    }
}

#[tokio::test]
async fn length_beyond_the_limit_is_refused_before_the_body() {
    for length in [1_u64 << 31, 1 << 40, u64::MAX] {
        for kind in [FrameKind::TensorRef, FrameKind::Tensor, FrameKind::Graph, FrameKind::Heartbeat] {
            let mut host = Host::open(None, 1000).await;
            host.raw(&Header { number: kind as u8, body_bytes: length }.encode()).await;
            let error = host.error().await;
            assert!(error.contains(&length.to_string()), "{kind:?}: {error}");
        }
        let mut host = Host::open(None, 1000).await;
        let command = Header { number: RpcCommand::SetTensor as u8, body_bytes: length - 9 };
        let frame = Header { number: FrameKind::Command as u8, body_bytes: length };
        host.raw(&[frame.encode(), command.encode()].concat()).await;
        let error = host.error().await;
        assert!(error.contains("more than the limit of 305"), "{error}");
    }
}

#[tokio::test]
async fn tensors_fit_in_the_buffers_of_the_tunnel() {
    for kind in [FrameKind::Tensor, FrameKind::Command] {
        let mut host = Host::open(None, 1000).await;
        host.allocate(100).await;
        let body = tensor(&[0; 101]);
        let frame = if kind == FrameKind::Tensor { body } else { rpc::encode(RpcCommand::SetTensor, &body) };
        host.send(kind, &frame).await;
        let error = host.error().await;
        assert!(error.contains("406 bytes, more than the limit of 405"), "{error}");
    }
    let mut host = Host::open(None, 1000).await;
    host.allocate(100).await;
    host.command(RpcCommand::GetTensor, &get_tensor(0, 101)).await;
    assert!(host.error().await.contains("exceeds the buffers of 100 bytes"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("05".repeat(32)), [0; 101]).unwrap();
    let mut host = Host::open(Some(cache(&folder)), 1000).await;
    host.allocate(100).await;
    host.send(FrameKind::TensorRef, &[&tensor(&[])[..], &[5; 32]].concat()).await;
    assert!(host.error().await.contains("exceeds the buffers of 100 bytes"));
}

#[tokio::test]
async fn invalid_offsets_are_refused() {
    let mut host = Host::open(None, 4 << 20).await;
    host.allocate(4 << 20).await;
    host.command(RpcCommand::GetTensor, &get_tensor(u64::MAX, 2 << 20)).await;
    let error = loop {
        // The reply to the first part may come before.
        let header = Header::read(&mut host.from_worker).await.unwrap().unwrap();
        let body = read_body(&mut host.from_worker, header.body_bytes).await.unwrap();
        if FrameKind::of(header) == Some(FrameKind::Error) {
            break String::from_utf8(body).unwrap();
        }
    };
    assert!(error.contains("invalid offset"), "{error}");
}

#[tokio::test]
async fn garbage_ends_only_its_own_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, quota) = (cache(&folder), Arc::new(MemoryQuota::new(1000)));
    let mut honest = Host::with_quota(Some(cache.clone()), quota.clone()).await;
    assert_eq!(honest.allocate(400).await, 1);
    for seed in 1..=8 {
        let mut host = Host::with_quota(Some(cache.clone()), quota.clone()).await;
        host.allocate(100).await;
        let _ = host.wire.write_all(&noise(seed, 1 << 20)).await;
        drop(host.wire);
        host.serving.await.unwrap().unwrap_err();
    }
    let half_frame = alloc_command(9);
    for end in 0..half_frame.len() {
        let mut host = Host::with_quota(Some(cache.clone()), quota.clone()).await;
        let frame = Header { number: FrameKind::Command as u8, body_bytes: half_frame.len() as u64 };
        host.raw(&[&frame.encode()[..], &half_frame[..end]].concat()).await;
        drop(host.wire);
        assert!(host.serving.await.unwrap().is_err(), "{end} bytes");
    }
    assert_eq!(quota.usage(), (1000, 400));
    assert_eq!(honest.allocate(600).await, 2);
    honest.close().await;
}

#[tokio::test]
async fn wrong_replies_of_the_rpc_server_end_the_tunnel() {
    // The reply to GET_ALIGNMENT has eight bytes.
    for (reply, reason) in [
        ([1 << 40, 0].map(u64::to_le_bytes).concat(), "1099511627776 bytes instead of 8"),
        ([4_u64, 0].map(u64::to_le_bytes).concat(), "4 bytes instead of 8"),
        ([8_u64, 0, 8, 0].map(u64::to_le_bytes).concat(), "replies to no command"),
    ] {
        let (connection, mut corrupt_server) = tcp_pair().await;
        let (_, server) = rpc_server().await;
        let quota = Arc::new(MemoryQuota::new(0));
        let mut host = Host::with_server(connection, server, None, quota).await;
        host.command(RpcCommand::GetAlignment, &[0; 4]).await;
        Header::read(&mut corrupt_server).await.unwrap();
        corrupt_server.write_all(&reply).await.unwrap();
        if reason.contains("no command") {
            host.reply().await;
        }
        let error = host.error().await;
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn unanswered_commands_are_limited() {
    let (connection, silent_server) = tcp_pair().await;
    let (_, server) = rpc_server().await;
    let mut host = Host::with_server(connection, server, None, Arc::new(MemoryQuota::new(0))).await;
    for _ in 0..3 * MAX_EXPECTED_REPLIES {
        host.command(RpcCommand::GetAlignment, &[0; 4]).await;
    }
    // The relay itself waits for one more reply.
    let mut received = 0;
    let mut silent_server = BufReader::new(silent_server);
    while let Ok(header) = timeout(Duration::from_millis(100), Header::read(&mut silent_server)).await {
        read_body(&mut silent_server, header.unwrap().unwrap().body_bytes).await.unwrap();
        received += 1;
    }
    assert!(received <= MAX_EXPECTED_REPLIES + 1, "{received}");
}
