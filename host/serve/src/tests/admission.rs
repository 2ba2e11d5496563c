use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::stream;
use tightwad_net::http::MAX_BODY_BYTES;

use crate::admission::{Admission, MAX_SMALL_BODY_BYTES};

const LARGE: usize = MAX_SMALL_BODY_BYTES + 1;

/// Reserves for one body of each kind.
fn admission() -> Admission {
    Admission::new(MAX_SMALL_BODY_BYTES, MAX_BODY_BYTES, Duration::from_secs(10))
}

fn body(length: usize) -> Body {
    Body::from(vec![b' '; length])
}

/// A body without a `Content-Length`.
fn chunked(chunks: usize, chunk: usize) -> Body {
    let chunk = Bytes::from(vec![b' '; chunk]);
    Body::from_stream(stream::iter(vec![Ok::<_, Infallible>(chunk); chunks]))
}

#[tokio::test(start_paused = true)]
async fn large_bodies_wait_and_small_ones_do_not() {
    let admission = admission();
    let first = admission.read(body(MAX_BODY_BYTES)).await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(admission.read(body(100)).await.is_ok());
    assert_eq!(start.elapsed(), Duration::ZERO);
    let refused = admission.read(body(LARGE)).await.err().unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    let (waiting, ()) = tokio::join!(admission.read(body(LARGE)), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(first);
    });
    assert_eq!(waiting.unwrap().bytes.len(), LARGE);
    assert_eq!(start.elapsed(), Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn small_bodies_have_a_limit_together() {
    let admission = admission();
    let small = MAX_SMALL_BODY_BYTES / 2;
    let _held = [admission.read(body(small)).await.unwrap(), admission.read(body(small)).await.unwrap()];
    assert!(admission.read(body(1)).await.is_err());
    assert!(admission.read(body(LARGE)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn body_of_unknown_length_takes_the_share_that_it_needs() {
    let admission = admission();
    let large = admission.read(chunked(2, MAX_SMALL_BODY_BYTES)).await.unwrap();
    assert_eq!(large.share.bytes(), 2 * MAX_SMALL_BODY_BYTES);
    let small = admission.read(chunked(3, 100)).await.unwrap();
    assert_eq!((small.bytes.len(), small.share.bytes()), (300, 300));
    // The rest of both reserves is free again.
    assert!(admission.read(body(MAX_SMALL_BODY_BYTES - 300)).await.is_ok());
    assert!(admission.read(body(MAX_BODY_BYTES - 2 * MAX_SMALL_BODY_BYTES)).await.is_ok());
}

#[tokio::test]
async fn endless_body_is_refused_at_the_limit() {
    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    let endless = Body::from_stream(stream::repeat(Ok::<_, Infallible>(chunk)));
    let refused = admission().read(endless).await.err().unwrap();
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn body_that_breaks_off_is_an_error() {
    let broken = Body::from_stream(stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]));
    assert_eq!(admission().read(broken).await.err().unwrap().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn large_bodies_are_parsed_on_another_thread() {
    let (admission, here) = (admission(), std::thread::current().id());
    let small = admission.read(body(MAX_SMALL_BODY_BYTES)).await.unwrap();
    let large = admission.read(body(LARGE)).await.unwrap();
    let thread = |_| std::thread::current().id();
    assert_eq!(admission.parse(small, thread).await.unwrap().0, here);
    assert_ne!(admission.parse(large, thread).await.unwrap().0, here);
}

#[tokio::test]
async fn abandoned_body_keeps_its_share_until_it_is_parsed() {
    let admission = Arc::new(Admission::new(1, MAX_BODY_BYTES, Duration::from_millis(5)));
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let large = admission.read(body(MAX_BODY_BYTES)).await.unwrap();
    let parsing = tokio::spawn({
        let admission = admission.clone();
        let parse = move |_| {
            let _ = begin.send(());
            let _ = released.recv();
        };
        async move { admission.parse(large, parse).await.map(drop) }
    });
    begun.await.unwrap();
    parsing.abort();
    assert!(parsing.await.unwrap_err().is_cancelled());
    assert!(admission.read(body(LARGE)).await.is_err());
    release.send(()).unwrap();
    while admission.read(body(LARGE)).await.is_err() {}
}
