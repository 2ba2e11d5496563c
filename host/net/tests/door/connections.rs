//! Limits of connections: time, number and size.

use std::time::Duration;

use tightwad_net::door::ConnectionLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Connection, STEP_TIMEOUT, Server, get_request, long_limits, observe, status};

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn half_open_header_is_closed_at_its_limit() {
    let server = Server::start(ConnectionLimits { header_timeout: SHORT, ..long_limits() }).await;
    let mut silent = server.connect().await;
    let mut half_open = server.connect().await;
    half_open.send("POST /echo HTTP/1.1\r\nHost: x\r\nX: ").await;
    silent.closed().await;
    half_open.closed().await;
}

#[tokio::test]
async fn second_header_on_a_connection_has_the_same_limit() {
    let server = Server::start(ConnectionLimits { header_timeout: SHORT, ..long_limits() }).await;
    let mut connection = server.connect().await;
    connection.send(&get_request("/v1/models")).await;
    assert_eq!(status(&connection.response().await), 200);
    tokio::time::sleep(2 * SHORT).await;
    connection.send("GET /v1/models HTTP/1.1\r\n").await;
    connection.closed().await;
}

#[tokio::test]
async fn idle_connection_is_closed_and_a_running_request_is_not() {
    let server = Server::start(ConnectionLimits { idle_timeout: SHORT, ..long_limits() }).await;
    let mut running = server.connect().await;
    running.send(&get_request("/wait")).await;
    observe(&server.probe.begun).await;
    let mut idle = server.connect().await;
    idle.send(&get_request("/v1/models")).await;
    assert_eq!(status(&idle.response().await), 200);
    idle.closed().await;
    tokio::time::sleep(2 * SHORT).await;
    server.probe.release.notify_one();
    assert_eq!(status(&running.response().await), 200);
}

#[tokio::test]
async fn client_that_does_not_read_loses_its_response() {
    let server = Server::start(ConnectionLimits { write_timeout: SHORT, ..long_limits() }).await;
    let mut connection = server.connect().await;
    connection.send(&get_request("/endless")).await;
    observe(&server.probe.begun).await;
    observe(&server.probe.dropped).await;
}

#[tokio::test]
async fn client_that_disconnects_ends_its_handler() {
    let server = Server::start(long_limits()).await;
    for path in ["/wait", "/events", "/endless"] {
        let mut connection = server.connect().await;
        connection.send(&get_request(path)).await;
        observe(&server.probe.begun).await;
        drop(connection);
        observe(&server.probe.dropped).await;
    }
}

#[tokio::test]
async fn half_closed_client_gets_its_answer() {
    let server = Server::start(long_limits()).await;
    let mut connection = server.connect().await;
    connection.send(&get_request("/v1/models")).await;
    connection.0.shutdown().await.unwrap();
    let response = connection.response().await;
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("models"), "{response}");
    let mut connection = server.connect().await;
    connection.send(&get_request("/wait")).await;
    connection.0.shutdown().await.unwrap();
    let response = tokio::spawn(async move { connection.response().await });
    // Long enough for probes, which look like interim responses.
    tokio::time::sleep(Duration::from_millis(600)).await;
    server.probe.release.notify_one();
    let response = response.await.unwrap();
    assert!(response.starts_with("HTTP/1.1 100 Continue\r\n\r\n"), "{response}");
    assert!(response.contains("HTTP/1.1 200") && response.ends_with("released"), "{response}");
}

#[tokio::test]
async fn half_closed_client_gets_its_events() {
    let server = Server::start(long_limits()).await;
    let mut connection = server.connect().await;
    connection.send(&get_request("/events")).await;
    connection.0.shutdown().await.unwrap();
    observe(&server.probe.begun).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    server.probe.release.notify_one();
    let mut text = String::new();
    timeout(STEP_TIMEOUT, connection.0.read_to_string(&mut text)).await.unwrap().unwrap();
    let (events, comments) = (text.matches("data: ").count(), text.matches("\n:\n\n").count());
    assert!(events == 2 && comments > 0 && text.ends_with("0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn client_that_half_closes_and_then_leaves_ends_its_handler() {
    let server = Server::start(long_limits()).await;
    let mut connection = server.connect().await;
    connection.send(&get_request("/wait")).await;
    observe(&server.probe.begun).await;
    connection.0.shutdown().await.unwrap();
    tokio::time::sleep(SHORT).await;
    drop(connection);
    observe(&server.probe.dropped).await;
}

#[tokio::test]
async fn honest_client_is_served_beside_half_open_connections() {
    let server = Server::start(ConnectionLimits { max_connections: 32, ..long_limits() }).await;
    let mut kept = server.connect().await;
    let mut attackers: Vec<Connection> = Vec::new();
    for round in 0..40 {
        for _ in 0..8 {
            let mut attacker = server.connect().await;
            attacker.send("POST /echo HTTP/1.1\r\nX: ").await;
            attackers.push(attacker);
        }
        assert_eq!(status(&server.get("/v1/models").await), 200, "round {round}");
        if round == 0 {
            kept.send(&get_request("/wait")).await;
            observe(&server.probe.begun).await;
        }
    }
    server.probe.release.notify_one();
    assert_eq!(status(&kept.response().await), 200, "a running request stays");
}

#[tokio::test]
async fn full_server_refuses_connections_with_a_reason() {
    let server = Server::start(ConnectionLimits { max_connections: 1, ..long_limits() }).await;
    let mut running = server.connect().await;
    running.send(&get_request("/wait")).await;
    observe(&server.probe.begun).await;
    let mut refused = server.connect().await;
    let response = refused.response().await;
    assert!(response.starts_with("HTTP/1.1 503"), "{response}");
    let body: serde_json::Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["error"]["type"], "server_error");
    server.probe.release.notify_one();
    assert_eq!(status(&running.response().await), 200);
    drop(running);
    let answered = async { while status(&server.get("/v1/models").await) != 200 {} };
    timeout(STEP_TIMEOUT, answered).await.unwrap();
}

#[tokio::test]
async fn header_has_a_maximum_size() {
    let server = Server::start(ConnectionLimits { max_header_bytes: 8 << 10, ..long_limits() }).await;
    let large = format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(9 << 10));
    assert_eq!(status(&server.ask(&large).await), 431);
    let many = format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: x\r\n".repeat(101));
    assert_eq!(status(&server.ask(&many).await), 431);
}

#[tokio::test]
async fn panic_of_a_handler_is_a_500_and_the_connection_stays() {
    let server = Server::start(long_limits()).await;
    let mut connection = server.connect().await;
    for (path, expected) in [("/panic", 500), ("/v1/models", 200)] {
        connection.send(&get_request(path)).await;
        assert_eq!(status(&connection.response().await), expected);
    }
}
