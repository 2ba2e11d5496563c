//! Requests of web pages, and spellings of paths.

use std::time::Duration;

use crate::support::{Server, long_limits, status};

async fn ask(server: &Server, method: &str, path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().flat_map(|header| [header, "\r\n"]).collect();
    server.ask(&format!("{method} {path} HTTP/1.1\r\n{headers}\r\n")).await
}

fn has_header(response: &str, header: &str) -> bool {
    response.to_ascii_lowercase().contains(&format!("\r\n{header}\r\n"))
}

#[tokio::test]
async fn rebound_name_reaches_no_path_without_token() {
    let server = Server::start(long_limits()).await;
    for path in ["/v1/models", "/echo", "/metrics"] {
        let response = ask(&server, "GET", path, &["Host: evil.example:8088"]).await;
        assert_eq!(status(&response), 421, "{path}");
        assert!(response.contains("'evil.example' is not a name of this server"), "{response}");
    }
    assert_eq!(status(&ask(&server, "GET", "/v1/models", &["Host: box.lan"]).await), 200);
    assert_eq!(status(&ask(&server, "GET", "/v1/models", &[]).await), 400);
    assert_eq!(
        status(&ask(&server, "GET", "http://evil.example/v1/models", &["Host: localhost"]).await),
        421
    );
    assert_eq!(status(&ask(&server, "GET", "/health", &["Host: evil.example"]).await), 200);
    let guarded = Server::with(long_limits(), true, Duration::ZERO).await;
    assert_eq!(status(&ask(&guarded, "GET", "/v1/models", &["Host: any.example"]).await), 200);
}

#[tokio::test]
async fn page_of_another_origin_is_refused() {
    let server = Server::with(long_limits(), true, Duration::ZERO).await;
    for method in ["GET", "POST", "OPTIONS", "DELETE"] {
        let response =
            ask(&server, method, "/empty", &["Host: localhost", "Origin: https://evil.example"]).await;
        assert_eq!(status(&response), 403, "{method}");
        assert!(!response.to_ascii_lowercase().contains("access-control"), "{response}");
    }
    let cross_site = ["Host: localhost", "Sec-Fetch-Site: cross-site"];
    assert_eq!(status(&ask(&server, "POST", "/empty", &cross_site).await), 403);
    let own = format!("http://localhost:{}", server.address.port());
    let own = [format!("Host: localhost:{}", server.address.port()), format!("Origin: {own}")];
    assert_eq!(status(&ask(&server, "POST", "/empty", &[&own[0], &own[1], "Content-Length: 0"]).await), 200);
}

#[tokio::test]
async fn page_of_an_allowed_origin_can_read_answers() {
    let server = Server::start(long_limits()).await;
    let origin = "Origin: http://localhost:5173";
    let preflight = ask(
        &server,
        "OPTIONS",
        "/echo",
        &[
            "Host: localhost",
            origin,
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization,content-type",
        ],
    )
    .await;
    assert_eq!(status(&preflight), 200, "{preflight}");
    assert!(has_header(&preflight, "access-control-allow-origin: http://localhost:5173"), "{preflight}");
    assert!(
        has_header(&preflight, "access-control-allow-headers: authorization,content-type"),
        "{preflight}"
    );
    for (path, expected) in [("/v1/models", 200), ("/missing", 404)] {
        let response =
            ask(&server, "GET", path, &["Host: localhost", origin, "Sec-Fetch-Site: cross-site"]).await;
        assert_eq!(status(&response), expected);
        assert!(has_header(&response, "access-control-allow-origin: http://localhost:5173"), "{response}");
    }
    let direct = ask(&server, "GET", "/v1/models", &["Host: localhost"]).await;
    assert!(!direct.to_ascii_lowercase().contains("access-control"), "{direct}");
}

#[tokio::test]
async fn path_with_further_slashes_is_found_and_a_wrong_one_names_the_right_one() {
    let server = Server::start(long_limits()).await;
    for path in ["/v1/models/", "//v1/models", "/v1//models//"] {
        assert_eq!(status(&server.get(path).await), 200, "{path}");
    }
    let response = server.get("/models").await;
    assert!(response.contains("the path /models does not exist; did you mean /v1/models?"), "{response}");
}
