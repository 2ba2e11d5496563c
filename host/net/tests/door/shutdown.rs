//! Graceful shutdown.

use std::time::Duration;

use tightwad_net::door::{ConnectionLimits, Ended};
use tokio::time::timeout;

use crate::support::{STEP_TIMEOUT, Server, get_request, long_limits, observe, status};

const HOUR: Duration = Duration::from_secs(3600);

async fn ended(server: Server) -> Ended {
    timeout(STEP_TIMEOUT, server.task).await.expect("the server does not end").unwrap().unwrap()
}

#[tokio::test]
async fn idle_and_half_open_connections_do_not_delay_the_end() {
    let limits = ConnectionLimits { drain_header_timeout: Duration::from_millis(50), ..long_limits() };
    let server = Server::with(limits, false, HOUR).await;
    let mut idle = server.connect().await;
    idle.send(&get_request("/v1/models")).await;
    assert_eq!(status(&idle.response().await), 200);
    let mut half_open = server.connect().await;
    half_open.send("GET /v1/models HTTP/1.1\r\n").await;
    server.signal.notify_one();
    assert_eq!(ended(server).await, Ended::Complete);
    idle.closed().await;
    half_open.closed().await;
}

#[tokio::test]
async fn running_request_finishes_and_new_ones_are_refused() {
    let server = Server::with(long_limits(), false, HOUR).await;
    let (mut running, mut late) = (server.connect().await, server.connect().await);
    running.send(&get_request("/wait")).await;
    observe(&server.probe.begun).await;
    late.send("GET /v1/models HTTP/1.1\r\n").await;
    // Once this answer is there, the server has read the half of the other request.
    assert_eq!(status(&server.get("/v1/models").await), 200);
    server.signal.notify_one();
    while tokio::net::TcpStream::connect(server.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    late.send("Host: localhost\r\n\r\n").await;
    let refused = late.response().await;
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(refused.contains("\"code\":\"shutting_down\""), "{refused}");
    assert!(refused.to_ascii_lowercase().contains("retry-after: 1"), "{refused}");
    server.probe.release.notify_one();
    let response = running.response().await;
    assert!(
        response.ends_with("released") && response.to_ascii_lowercase().contains("connection: close"),
        "{response}"
    );
    assert_eq!(ended(server).await, Ended::Complete);
}

#[tokio::test]
async fn request_at_the_deadline_gets_a_503() {
    let server = Server::with(long_limits(), false, Duration::from_millis(50)).await;
    let mut running = server.connect().await;
    running.send(&get_request("/wait")).await;
    observe(&server.probe.begun).await;
    server.signal.notify_one();
    let response = running.response().await;
    assert_eq!(status(&response), 503, "{response}");
    assert!(response.contains("\"code\":\"shutting_down\""), "{response}");
    observe(&server.probe.dropped).await;
    assert_eq!(ended(server).await, Ended::AtDeadline);
}

#[tokio::test]
async fn stalled_reader_does_not_delay_the_end() {
    let server = Server::with(long_limits(), false, Duration::from_millis(50)).await;
    let mut stalled = server.connect().await;
    stalled.send(&get_request("/endless")).await;
    observe(&server.probe.begun).await;
    server.signal.notify_one();
    observe(&server.probe.dropped).await;
    assert_eq!(ended(server).await, Ended::AtDeadline);
}
