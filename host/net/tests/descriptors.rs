//! A server without free descriptors. The limit belongs to the process, so this test has its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rustix::process::{Resource, getrlimit, setrlimit};
use tightwad_net::door::{DoorConfig, Shutdown, descriptor_limit, raise_descriptor_limit, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// A step that takes longer fails the test.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

async fn response(stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut text = String::new();
    timeout(STEP_TIMEOUT, stream.read_to_string(&mut text)).await.expect("no response").unwrap();
    text
}

/// Opens files until the process has no descriptor left.
async fn take_all_descriptors() -> Vec<File> {
    let mut files = Vec::new();
    // The server closes the sockets of earlier connections a moment later.
    for _ in 0..5 {
        files.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    files
}

#[tokio::test]
async fn half_open_connection_gives_its_descriptor_to_a_new_one() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(64);
    setrlimit(Resource::Nofile, limit).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/health", get(async || "ok"));
    tokio::spawn(serve(listener, router, DoorConfig::new(|| false), Shutdown::never()));
    let mut half_open = TcpStream::connect(address).await.unwrap();
    half_open.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    let mut first = TcpStream::connect(address).await.unwrap();
    assert!(response(&mut first).await.starts_with("HTTP/1.1 200"));
    let socket = TcpSocket::new_v4().unwrap();
    let files = take_all_descriptors().await;
    let mut client = socket.connect(address).await.unwrap();
    // The server accepts it long before its request, and then has no descriptor for the next client.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(response(&mut client).await.starts_with("HTTP/1.1 200"));
    let closed = timeout(STEP_TIMEOUT, half_open.read(&mut [0; 16])).await.expect("it is still open");
    assert!(closed.is_err() || closed.unwrap() == 0, "the half-open connection made room");
    drop(files);
    raise_descriptor_limit();
    let maximum = limit.maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap());
    assert_eq!(descriptor_limit(), maximum);
}
