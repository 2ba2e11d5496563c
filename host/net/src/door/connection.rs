//! Serves one connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::either::Either;
use tower::Service;

use crate::door::activity::{Activity, Phase};
use crate::door::config::{ConnectionLimits, Encryption};
use crate::door::encryption::{self, Client};
use crate::door::io::DoorStream;
use crate::door::shutdown::Shutdown;
use crate::door::socket;
use crate::door::table::Place;
use crate::http::error::ApiError;
use crate::http::paths;

/// The interval of probes of a client that has closed its write side. The first probe waits too, so that the client of
/// a quick response sees none.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// An interim response: every client of HTTP/1.1 skips it (RFC 9110, 15.2).
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// A comment in a stream of events.
const COMMENT: &[u8] = b":\n\n";

/// What all connections of a server share.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub router: Router,
    pub limits: ConnectionLimits,
    pub encryption: Encryption,
    pub shutdown: Shutdown,
}

/// Serves one connection until it ends, until a time limit passes, or until the door asks it to close. Dropping the
/// connection drops the handler and its response body, which ends their work.
pub(crate) async fn serve(context: ConnectionContext, stream: TcpStream, peer: SocketAddr, place: Place) {
    let (stream, activity) = (Arc::new(stream), place.activity().clone());
    let opened = tokio::select! {
        opened = encryption::open(&context.encryption, DoorStream::new(stream.clone(), place), peer) => opened,
        _ = activity.expired(&context.limits) => return,
        () = activity.closing() => return,
        () = context.shutdown.started() => return,
    };
    match opened {
        Ok(client) => serve_requests(context, client, (stream, peer), activity).await,
        Err(error) => tracing::debug!(%peer, %error, "closed a connection before its first request"),
    }
}

/// Serves the requests of a client.
async fn serve_requests(
    context: ConnectionContext,
    client: Client,
    (stream, peer): (Arc<TcpStream>, SocketAddr),
    activity: Arc<Activity>,
) {
    let ConnectionContext { router, limits, shutdown, .. } = context;
    let is_plain = matches!(client.stream, Either::Left(_));
    let service = service_fn({
        let (activity, shutdown) = (activity.clone(), shutdown.clone());
        move |request| {
            let request = authorize(request, client.authorization.as_ref());
            // Raw bytes of a probe would break an encrypted connection.
            activity.begin_request(is_plain && request.version() == Version::HTTP_11);
            respond(router.clone(), request, peer, activity.clone(), shutdown.clone())
        }
    });
    let io = TokioIo::new(client.stream);
    let mut builder = http1::Builder::new();
    // Time limits are the activity's: hyper's header timeout would also end idle connections.
    builder.half_close(true).header_read_timeout(None).max_header_size(limits.max_header_bytes);
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
    let watch = async {
        tokio::select! {
            expiry = activity.expired(&limits) => tracing::debug!(%peer, ?expiry, "closed a connection at a time limit"),
            () = activity.closing() => tracing::debug!(%peer, "closed a waiting connection to make room"),
            () = socket::broken(&stream) => {}
            () = probe(&stream, &activity) => {}
        }
    };
    let mut watch = pin!(watch);
    tokio::select! {
        biased;
        _ = &mut connection => return,
        () = &mut watch => return,
        () = shutdown.started() => {}
    }
    // Idle connections end now, and the others after their response.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        _ = &mut connection => {}
        () = &mut watch => {}
        () = header_timeout(&activity, limits.drain_header_timeout) => {}
    }
}

/// Gives a request the authorization of its connection.
fn authorize(mut request: Request<Incoming>, authorization: Option<&HeaderValue>) -> Request<Incoming> {
    if let Some(authorization) = authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    request
}

/// Completes if no request begins within `limit`.
async fn header_timeout(activity: &Activity, limit: Duration) {
    sleep(limit).await;
    if activity.is_busy() {
        std::future::pending().await
    }
}

/// Probes a client that has closed its write side during a request. Either the client has gone, or it only has nothing
/// more to send: the two look the same until the server sends something. The machine of a client that has gone answers
/// with a reset. Other responses than streams of events have no room for a probe; their next bytes have its effect.
/// Never completes.
async fn probe(stream: &TcpStream, activity: &Activity) {
    socket::write_side_closed(stream).await;
    loop {
        sleep(PROBE_INTERVAL).await;
        if activity.can_send_interim() {
            // A failure shows as a broken connection.
            let _ = stream.try_write(PROBE);
        }
        if activity.phase().0 == Phase::Responding {
            activity.request_comment();
            // The connection must poll the response again.
            yield_now().await;
        }
    }
}

async fn respond(
    mut router: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    activity: Arc<Activity>,
    shutdown: Shutdown,
) -> Result<Response<TrackedBody>, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(activity.clone());
    if let Some(uri) = paths::normalized(request.uri()) {
        *request.uri_mut() = uri;
    }
    let response = tokio::select! {
        biased;
        Ok(response) = router.call(request) => response,
        () = shutdown.deadline() => ApiError::shutting_down().into_response(),
    };
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    activity.enter(if upgraded { Phase::Upgraded } else { Phase::Responding });
    let content_type = response.headers().get(CONTENT_TYPE);
    let is_events = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    Ok(response.map(|body| TrackedBody { body, activity, is_events }))
}

/// A response body. Its end is the end of the request.
struct TrackedBody {
    body: Body,
    activity: Arc<Activity>,
    /// The body is a stream of server-sent events, one per frame. Clients skip comments between them.
    is_events: bool,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.is_events && self.activity.take_comment_request() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if self.activity.phase().0 == Phase::Responding {
            self.activity.enter(Phase::Idle);
        }
    }
}
