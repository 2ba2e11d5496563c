//! Fuzz targets. Each parses any bytes, and panics if a parser has a fault.

// A panic is the finding.
#![allow(clippy::panic)]

use std::sync::Arc;

use tokio::io::sink;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::command_relay::CommandRelay;
use crate::graph::GraphCodec;
use crate::quota::{MemoryQuota, Reservations};
use crate::reply_relay::{ExpectedReply, MAX_EXPECTED_REPLIES};

/// The memory that the fuzzed worker lends, in bytes.
const QUOTA_BYTES: u64 = 1 << 20;

thread_local! {
    static RUNTIME: Option<Runtime> = tokio::runtime::Builder::new_current_thread().build().ok();
}

/// A worker relays the frames of a host until the first wrong one. Every allocation stays within the quota, and the
/// memory is free at the end.
pub fn frames(bytes: &[u8]) {
    let quota = Arc::new(MemoryQuota::new(QUOTA_BYTES));
    RUNTIME.with(|runtime| {
        if let Some(runtime) = runtime {
            runtime.block_on(relay(bytes, &quota));
        }
    });
    assert_eq!(quota.usage().1, 0, "memory is reserved after the tunnel");
}

async fn relay(bytes: &[u8], quota: &Arc<MemoryQuota>) {
    let reservations = Reservations::new(quota.clone());
    let (expected, mut replies) = mpsc::channel(MAX_EXPECTED_REPLIES);
    let mut commands = CommandRelay::new(sink(), expected, &reservations, None, None);
    let answer = async {
        let mut buffer = 0;
        while let Some(reply) = replies.recv().await {
            if let ExpectedReply::Buffer(bytes) = reply {
                // Each third allocation fails.
                reservations.complete(bytes, if buffer % 3 == 2 { 0 } else { buffer });
                buffer += 1;
            }
            let (limit, used) = quota.usage();
            assert!(used <= limit, "{used} of {limit} bytes are reserved");
        }
    };
    tokio::select! {
        // Most inputs have a wrong frame, which ends the tunnel.
        _ = commands.run(bytes) => {}
        () = answer => {}
    }
}

/// Decoded graphs survive encoding and decoding. The first two bytes are the length of the first graph.
pub fn graph_delta(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first_chunk() else { return };
    let (first, second) = bytes.split_at(bytes.len().min(u16::from_le_bytes(*length).into()));
    let mut decoder = GraphCodec::default();
    let (mut sender, mut receiver) = (GraphCodec::default(), GraphCodec::default());
    for encoded in [first, second] {
        let Ok(graph) = decoder.decode(encoded) else { continue };
        let Ok(encoded) = sender.encode(graph.clone()) else { panic!("a graph cannot be encoded") };
        assert_eq!(receiver.decode(&encoded).ok(), Some(graph));
    }
}
