//! The settings of a door.

use std::sync::Arc;
use std::time::Duration;

use crate::door::web::WebNames;
use crate::http::body_limit::MAX_BODY_BYTES;
use crate::tls::ServerTls;

/// Time limits and maximum counts of connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// The time from the first moment of a request, or of a new connection, to the end of the request's header.
    pub header_timeout: Duration,
    /// The time that a connection may stay open between two requests.
    pub idle_timeout: Duration,
    /// The time from the first missing byte of a request body to its end. 10 MiB in it need 35 kB per second.
    pub body_timeout: Duration,
    /// The time that an incomplete header gets after a shutdown has started.
    pub drain_header_timeout: Duration,
    /// The longest pause between two parts of a request body.
    pub body_idle_timeout: Duration,
    /// The time in which a client must read something while the server has bytes to send.
    pub write_timeout: Duration,
    /// Connections in total. The limit on open files lowers the number, see [`crate::door::descriptor_limit`].
    pub max_connections: usize,
    /// Connections per address. Loopback has no such limit: every local program has the same address.
    pub max_connections_per_address: usize,
    /// The size of a request's line and headers in bytes. A header has at most 100 lines.
    pub max_header_bytes: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            drain_header_timeout: Duration::from_millis(500),
            body_timeout: Duration::from_secs(300),
            body_idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            max_connections: 1024,
            max_connections_per_address: 256,
            max_header_bytes: 64 << 10,
        }
    }
}

/// Which connections may be plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainAccess {
    /// All.
    #[default]
    Everywhere,
    /// Those of this machine.
    Loopback,
    /// None.
    Nowhere,
}

/// Which connections of a server are encrypted. The default server understands plain HTTP only.
#[derive(Clone, Default)]
pub struct Encryption {
    /// Encrypts connections that begin with a handshake. `None`: the server understands plain HTTP only.
    pub tls: Option<ServerTls>,
    /// Which connections may be plain.
    pub plain: PlainAccess,
}

/// True while a server asks its clients for a token or a key.
type IsAuthenticated = dyn Fn() -> bool + Send + Sync;

/// The settings of a door.
#[derive(Clone)]
pub struct DoorConfig {
    /// Time limits and maximum counts.
    pub limits: ConnectionLimits,
    /// The size of a request body in bytes, after decompression.
    pub max_body_bytes: usize,
    /// Paths that take `application/octet-stream` instead of JSON.
    pub binary_paths: &'static [&'static str],
    /// The host names and web origins that may use the server, beside its own.
    pub web: Arc<WebNames>,
    /// Which connections are encrypted.
    pub encryption: Encryption,
    /// True while the server asks for a token. The `Host` of a request is then free, because a web page does not know
    /// the token.
    pub is_authenticated: Arc<IsAuthenticated>,
}

impl DoorConfig {
    /// The default settings of a server that asks for a token while `is_authenticated` returns true.
    pub fn new(is_authenticated: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            limits: ConnectionLimits::default(),
            max_body_bytes: MAX_BODY_BYTES,
            binary_paths: &[],
            web: Arc::default(),
            encryption: Encryption::default(),
            is_authenticated: Arc::new(is_authenticated),
        }
    }
}
