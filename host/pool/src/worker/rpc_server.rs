//! The process of an RPC server, and the connection to it.
//!
//! llama.cpp's server has no authentication: it serves each client that connects to its loopback
//! port, one client at a time.
//! Invariant: the worker uses a server only after it has verified that its own process listens, and that no other
//! connection to the port exists. Later connections wait until the process ends, which happens before the worker's
//! connection closes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use tightwad_tunnel::verify_server;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::child::own_process_group;

/// The maximum time until an RPC server accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two attempts to connect to an RPC server.
const CONNECT_INTERVAL: Duration = Duration::from_millis(10);
/// The maximum number of starts for one tunnel. Another process can take the port or connect first.
const MAX_STARTS: usize = 3;
/// The maximum time until a killed process has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The process of an RPC server. Dropping the value ends the process.
pub(crate) struct RpcServer {
    // Dropped first: the process ends before its connection closes.
    process: Child,
    _connection: std::net::TcpStream,
}

impl RpcServer {
    /// Starts an RPC server and connects to it.
    pub(crate) async fn start(threads: usize) -> io::Result<(Self, TcpStream)> {
        let mut start = 1;
        loop {
            match Self::start_once(threads).await {
                Err(error) if start < MAX_STARTS => tracing::warn!(%error, "an RPC server starts again"),
                result => return result,
            }
            start += 1;
        }
    }

    async fn start_once(threads: usize) -> io::Result<(Self, TcpStream)> {
        // The port is free now. If another process takes the port first, the server fails to start.
        let port_holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = port_holder.local_addr()?;
        drop(port_holder);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", "--serve", &address.to_string()]);
        command.args(["--threads", &threads.to_string()]);
        // The server's standard input closes when this process ends. The server then ends too.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        own_process_group(&mut command);
        let mut process = command.spawn()?;
        let connection = connect(&mut process, address).await?;
        let id = process.id().ok_or_else(|| io::Error::other("the RPC server has ended"))?;
        verify_server(id, address, connection.local_addr()?).await?;
        let connection = connection.into_std()?;
        let _connection = connection.try_clone()?;
        Ok((Self { process, _connection }, TcpStream::from_std(connection)?))
    }

    /// Ends the process and waits until its memory is free.
    pub(crate) async fn stop(mut self) {
        let _ = self.process.start_kill();
        let _ = timeout(STOP_TIMEOUT, self.process.wait()).await;
    }
}

/// Connects to the server of `process` when the server listens.
async fn connect(process: &mut Child, address: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match TcpStream::connect(address).await {
            Ok(connection) => return Ok(connection),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(CONNECT_INTERVAL).await,
        }
        if let Some(status) = process.try_wait()? {
            return Err(io::Error::other(format!("the RPC server ended: {status}")));
        }
    }
}
