//! Request bodies: type, encoding, size and time.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tightwad_net::door::ConnectionLimits;

use crate::support::{Server, long_limits, observe, post_request, status};

const JSON: &str = "Content-Type: application/json\r\n";
const SHORT: Duration = Duration::from_millis(100);

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn body_that_stops_is_a_408() {
    let server = Server::start(ConnectionLimits { body_idle_timeout: SHORT, ..long_limits() }).await;
    let mut connection = server.connect().await;
    connection
        .send(&format!(
            "POST /echo HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 500\r\n\r\n{{\"a\": 1"
        ))
        .await;
    let response = connection.response().await;
    assert_eq!(status(&response), 408, "{response}");
    assert!(response.contains("\"type\":\"invalid_request_error\""), "{response}");
    connection.closed().await;
}

#[tokio::test]
async fn body_that_drips_is_a_408() {
    let server = Server::start(ConnectionLimits { body_timeout: SHORT, ..long_limits() }).await;
    let mut connection = server.connect().await;
    connection
        .send(&format!("POST /echo HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 5000\r\n\r\n"))
        .await;
    for _ in 0..20 {
        connection.send("x").await;
        tokio::time::sleep(SHORT / 5).await;
    }
    assert_eq!(status(&connection.response().await), 408);
}

#[tokio::test]
async fn body_in_parts_is_read() {
    let server = Server::start(long_limits()).await;
    let mut connection = server.connect().await;
    connection
        .send(&format!("POST /echo HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 4\r\n\r\n"))
        .await;
    for part in ["[1", ",2"] {
        tokio::time::sleep(SHORT / 5).await;
        connection.send(part).await;
    }
    assert!(connection.response().await.ends_with("[1,2"));
}

#[tokio::test]
async fn incomplete_body_makes_room_for_others() {
    let server = Server::start(ConnectionLimits { max_connections: 1, ..long_limits() }).await;
    let mut slow = server.connect().await;
    slow.send(&format!(
        "POST /echo HTTP/1.1\r\nHost: localhost\r\n{JSON}Expect: 100-continue\r\nContent-Length: 500\r\n\r\n"
    ))
    .await;
    // The server asks for the body only when the handler waits for it.
    let mut interim = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut slow.0, &mut interim).await.unwrap();
    assert_eq!(status(&server.get("/v1/models").await), 200);
    slow.closed().await;
}

#[tokio::test]
async fn body_needs_a_content_type_that_web_pages_cannot_send_unasked() {
    let server = Server::start(long_limits()).await;
    let ask = async |path: &str, headers: &str| {
        let response = server.ask_bytes(&post_request(path, headers, b"{}")).await;
        (status(&response), response)
    };
    for kind in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"] {
        assert_eq!(ask("/echo", &format!("Content-Type: {kind}\r\n")).await.0, 200, "{kind}");
    }
    let forms = ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "text/json", "x"];
    for kind in forms {
        let (code, response) = ask("/echo", &format!("Content-Type: {kind}\r\n")).await;
        assert_eq!(code, 415, "{kind}");
        assert!(response.contains("-H 'Content-Type: application/json'"), "{response}");
    }
    assert_eq!(ask("/echo", "").await.0, 415);
    assert_eq!(ask("/binary", "Content-Type: application/octet-stream\r\n").await.0, 200);
    assert_eq!(ask("/binary", "Content-Type: text/plain\r\n").await.0, 415);
    assert_eq!(status(&server.ask_bytes(&post_request("/empty", "", b"")).await), 200, "nothing to describe");
}

#[tokio::test]
async fn gzip_body_is_decompressed() {
    let server = Server::start(long_limits()).await;
    for name in ["gzip", "x-gzip", "GZIP"] {
        let headers = format!("{JSON}Content-Encoding: {name}\r\n");
        let response = server.ask_bytes(&post_request("/echo", &headers, &gzip(b"[1, 2, 3]"))).await;
        assert!(
            response.starts_with("HTTP/1.1 200") && response.ends_with("[1, 2, 3]"),
            "{name}: {response}"
        );
    }
    let invalid = post_request("/echo", &format!("{JSON}Content-Encoding: gzip\r\n"), b"[1, 2, 3]");
    assert_eq!(status(&server.ask_bytes(&invalid).await), 400);
}

#[tokio::test]
async fn other_encodings_are_a_415() {
    let server = Server::start(long_limits()).await;
    for name in ["br", "deflate", "zstd", "gzip, gzip"] {
        let headers = format!("{JSON}Content-Encoding: {name}\r\n");
        assert_eq!(status(&server.ask_bytes(&post_request("/echo", &headers, b"[]")).await), 415, "{name}");
    }
}

#[tokio::test]
async fn limit_counts_decompressed_bytes() {
    let server = Server::start(long_limits()).await;
    let bomb = gzip(&vec![b' '; 32 << 20]);
    assert!(bomb.len() < 1 << 20, "the compressed body is within the limit");
    let request = post_request("/echo", &format!("{JSON}Content-Encoding: gzip\r\n"), &bomb);
    assert_eq!(status(&server.ask_bytes(&request).await), 413);
    let plain = post_request("/echo", JSON, &vec![b' '; (1 << 20) + 1]);
    assert_eq!(status(&server.ask_bytes(&plain).await), 413);
}

#[tokio::test]
async fn client_that_leaves_during_the_body_frees_its_place() {
    let server = Server::start(ConnectionLimits { max_connections: 1, ..long_limits() }).await;
    let mut connection = server.connect().await;
    connection
        .send(&format!("POST /echo HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 500\r\n\r\n["))
        .await;
    drop(connection);
    let mut next = server.connect().await;
    next.send(&crate::support::get_request("/wait")).await;
    observe(&server.probe.begun).await;
}
