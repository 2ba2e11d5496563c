//! Verifies connections on loopback by the kernel's table of connections. llama.cpp's RPC has no authentication, and
//! all users of a machine can reach its loopback.
//!
//! Only Linux has this table. Elsewhere, and where the system hides the table, the functions accept all connections.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::{fs, io};

use tokio::task::spawn_blocking;

/// The states of a connection in the table.
const LISTEN: u8 = 0x0a;
const TIME_WAIT: u8 = 0x06;
/// The maximum number of checks of one connection.
const MAX_CHECKS: usize = 3;

/// Checks that a socket of `process` listens at `server`, and that `client` is the only address with a connection to it.
///
/// # Errors
///
/// An error if another process listens or is connected.
pub async fn verify_server(process: u32, server: SocketAddr, client: SocketAddr) -> io::Result<()> {
    let check = move || match table().and_then(|table| Ok((table, sockets(process)?))) {
        Ok((table, sockets)) => check_server(&table, &sockets, server, client),
        Err(error) => {
            tracing::debug!(%error, "cannot verify the process behind a port on loopback");
            Ok(())
        }
    };
    repeat(check).await
}

/// Checks that the connection from `client` to this process, which listens at `server`, belongs to the user of this
/// process.
///
/// # Errors
///
/// An error if the connection belongs to another user.
pub(crate) async fn verify_client(client: SocketAddr, server: SocketAddr) -> io::Result<()> {
    let check = move || match table().and_then(|table| Ok((table, own_user()?))) {
        Ok((table, user)) => check_client(&table, user, client, server),
        Err(error) => {
            tracing::debug!(%error, "cannot verify the user of a connection on loopback");
            Ok(())
        }
    };
    repeat(check).await
}

/// Repeats a check that fails. The kernel can skip an entry of a table that changes.
async fn repeat(check: impl Fn() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let repeated = move || {
        let mut result = check();
        for _ in 1..MAX_CHECKS {
            if result.is_err() {
                result = check();
            }
        }
        result
    };
    spawn_blocking(repeated).await.map_err(io::Error::other)?
}

fn check_server(
    table: &[Entry],
    sockets: &HashSet<u64>,
    server: SocketAddr,
    client: SocketAddr,
) -> io::Result<()> {
    let (server, client) = (table_address(server), table_address(client));
    let is_own =
        |entry: &Entry| entry.state == LISTEN && entry.local == server && sockets.contains(&entry.inode);
    if !table.iter().any(is_own) {
        return Err(io::Error::other("another process listens at the port of the RPC server"));
    }
    let is_other =
        |entry: &&Entry| entry.remote == server && entry.state != TIME_WAIT && entry.local != client;
    match table.iter().find(is_other) {
        Some(entry) => {
            Err(io::Error::other(format!("the user {} is connected to the RPC server", entry.user)))
        }
        None => Ok(()),
    }
}

fn check_client(table: &[Entry], user: u32, client: SocketAddr, server: SocketAddr) -> io::Result<()> {
    let (server, client) = (table_address(server), table_address(client));
    let connection = table.iter().find(|entry| entry.local == client && entry.remote == server);
    match connection {
        Some(entry) if entry.user == user => Ok(()),
        Some(entry) => Err(io::Error::other(format!("refused a connection of the user {}", entry.user))),
        None => Err(io::Error::other("refused a connection of an unknown user")),
    }
}

/// The user of this process.
fn own_user() -> io::Result<u32> {
    #[cfg(unix)]
    return Ok(std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self")?));
    #[cfg(not(unix))]
    Err(io::ErrorKind::Unsupported.into())
}

/// All TCP connections over IPv4.
fn table() -> io::Result<Vec<Entry>> {
    Ok(fs::read_to_string("/proc/net/tcp")?.lines().skip(1).filter_map(Entry::parse).collect())
}

/// A line of `/proc/net/tcp`.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    local: String,
    remote: String,
    state: u8,
    user: u32,
    inode: u64,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let field = |index: usize| fields.get(index).copied();
        Some(Self {
            local: field(1)?.to_owned(),
            remote: field(2)?.to_owned(),
            state: u8::from_str_radix(field(3)?, 16).ok()?,
            user: field(7)?.parse().ok()?,
            inode: field(9)?.parse().ok()?,
        })
    }
}

/// An IPv4 address as in the table: the bytes of the address are a native number.
fn table_address(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(v6) => v6.to_string(),
    }
}

/// The inodes of the open sockets of a process.
fn sockets(process: u32) -> io::Result<HashSet<u64>> {
    let mut sockets = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        // The process may have closed the file.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        sockets.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    Ok(sockets)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_the_first_client_of_the_own_server_passes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let first = TcpStream::connect(server).unwrap();
        let client = first.local_addr().unwrap();
        let check = |process: u32| {
            check_server(&table().unwrap(), &sockets(process).unwrap(), server, client)
                .map_err(|error| error.to_string())
        };
        let own = std::process::id();
        check(own).unwrap();
        let mut stranger = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let error = check(stranger.id()).unwrap_err();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(error.contains("another process"), "{error}");
        let second = TcpStream::connect(server).unwrap();
        assert!(check(own).unwrap_err().contains("is connected"));
        drop(second);
        // The server has not processed the second connection yet.
        assert!(check(own).is_err());
        drop(listener);
        assert!(check(own).unwrap_err().contains("another process"));
    }

    #[test]
    fn connections_of_other_users_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let connection = TcpStream::connect(server).unwrap();
        let (client, user) = (connection.local_addr().unwrap(), own_user().unwrap());
        let table = table().unwrap();
        check_client(&table, user, client, server).unwrap();
        let error = check_client(&table, user + 1, client, server).unwrap_err().to_string();
        assert_eq!(error, format!("refused a connection of the user {user}"));
        assert!(check_client(&[], user, client, server).is_err());
    }
}
