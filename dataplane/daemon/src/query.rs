//! The statistics socket: one JSON object a line in, one out.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use pollux_config::api::{DataplaneRequest, REQUEST_LEN_MAX};
use thiserror::Error;

/// Connections at the same time; the operator's tools need one each.
const CLIENTS_MAX: usize = 32;

/// Why the socket is not there.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Another data plane answers at that path.
    #[error("{path}: another data plane answers here; stop it, or give this one a run directory of its own")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A call failed.
    #[error("{path}: {source}")]
    Call {
        /// The socket.
        path: PathBuf,
        /// With what.
        #[source]
        source: io::Error,
    },
}

/// The listener and its connections.
#[derive(Debug)]
pub struct QuerySocket {
    listener: UnixListener,
    clients: Vec<Client>,
    path: PathBuf,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    closing: bool,
}

impl QuerySocket {
    /// Listens at `path`; a dead socket there is replaced.
    pub fn bind(path: &Path) -> Result<Self, QueryError> {
        let call = |source| QueryError::Call { path: path.to_owned(), source };
        if UnixStream::connect(path).is_ok() {
            return Err(QueryError::InUse { path: path.to_owned() });
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(call(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(call)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(call)?;
        listener.set_nonblocking(true).map_err(call)?;
        Ok(Self { listener, clients: Vec::new(), path: path.to_owned() })
    }

    /// Descriptors to poll, with whether each has something to write.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let clients = self.clients.iter().map(|client| (client.stream.as_fd(), !client.output.is_empty()));
        std::iter::once((self.listener.as_fd(), false)).chain(clients)
    }

    /// Takes in connections and requests, lets `answer` answer each, and sends what can be sent.
    pub fn serve(&mut self, mut answer: impl FnMut(Result<DataplaneRequest, String>) -> String) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < CLIENTS_MAX && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, input: Vec::new(), output: Vec::new(), closing: false });
            }
        }
        for client in &mut self.clients {
            client.receive();
            while let Some(line) = client.take_line() {
                let request =
                    serde_json::from_slice(&line).map_err(|error| format!("not a request: {error}"));
                client.output.extend_from_slice(answer(request).as_bytes());
                client.output.push(b'\n');
            }
            if client.input.len() > REQUEST_LEN_MAX {
                client.input.clear();
                client.closing = true;
            }
            client.send();
        }
        self.clients.retain(|client| !(client.closing && client.output.is_empty()));
    }
}

impl Client {
    fn receive(&mut self) {
        let mut room = [0; 4096];
        while self.input.len() <= REQUEST_LEN_MAX {
            match self.stream.read(&mut room) {
                Ok(0) => {
                    self.closing = true;
                    return;
                }
                Ok(len) => self.input.extend_from_slice(&room[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.closing |= error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.iter().position(|&octet| octet == b'\n')?;
        let mut line: Vec<u8> = self.input.drain(..=end).collect();
        line.pop();
        Some(line)
    }

    fn send(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.output.clear();
                    self.closing = true;
                }
            }
        }
    }
}

impl Drop for QuerySocket {
    fn drop(&mut self) {
        // Best effort: a socket left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn requests_are_answered_in_order_and_nonsense_is_named() {
        let folder = std::env::temp_dir().join(format!("pollux-query-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("query.sock");
        let mut socket = QuerySocket::bind(&path).expect("a socket");
        assert!(matches!(QuerySocket::bind(&path), Err(QueryError::InUse { .. })));
        let mut client = UnixStream::connect(&path).expect("it listens");
        client.write_all(b"{\"op\":\"status\"}\n{\"op\":\"dance\"}\n{\"op\":\"dro").expect("written");
        for _ in 0..2 {
            socket.serve(|request| match request {
                Ok(request) => format!("{request:?}"),
                Err(error) => error,
            });
        }
        client.write_all(b"ps\"}\n").expect("written");
        socket.serve(|request| format!("{request:?}"));
        let mut lines = BufReader::new(client).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("Status"));
        assert!(lines.next().is_some_and(|line| line.starts_with("not a request: unknown variant")));
        assert_eq!(lines.next().as_deref(), Some("Ok(Drops)"));
        drop(socket);
        assert!(!path.exists());
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_client_that_never_ends_its_line_is_let_go() {
        let folder = std::env::temp_dir().join(format!("pollux-query-long-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut socket = QuerySocket::bind(&folder.join("query.sock")).expect("a socket");
        let mut client = UnixStream::connect(folder.join("query.sock")).expect("it listens");
        client.set_nonblocking(true).expect("non-blocking");
        for _ in 0..64 {
            let _ = client.write(&[b'x'; 4096]);
            socket.serve(|_| String::new());
        }
        assert!(socket.clients.is_empty());
        drop(socket);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
