//! The statistics socket: one JSON object a line in, one out.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pollux_config::api::{DataplaneRequest, REQUEST_LEN_MAX};
use pollux_shm::{RunDirError, SocketPlace};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, SocketType, listen};
use thiserror::Error;

/// Connections at the same time; the operator's tools need one each.
const CLIENTS_MAX: usize = 32;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 32;
/// A connection on which nothing moves for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Why the socket is not there.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Another data plane answers at that path.
    #[error("{path}: another data plane answers here; stop it, or give this one a run directory of its own")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Its folder, or what lies at its name.
    #[error(transparent)]
    RunDir(RunDirError),
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

/// The listener and its connections, the one that moved last at the end.
#[derive(Debug)]
pub struct QuerySocket {
    listener: UnixListener,
    clients: Vec<Client>,
    place: SocketPlace,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    is_root: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    /// When octets last came or went.
    moved: Instant,
    closing: bool,
}

impl QuerySocket {
    /// Listens at `path`; a dead socket there is replaced. Only root may connect, and the user `control`
    /// where one is given.
    pub fn bind(path: &Path, control: Option<u32>) -> Result<Self, QueryError> {
        let call = |source| QueryError::Call { path: path.to_owned(), source };
        let refused = |error| match error {
            RunDirError::InUse { path } => QueryError::InUse { path },
            other => QueryError::RunDir(other),
        };
        let place = SocketPlace::of(path).map_err(refused)?;
        let socket = place.bind(SocketType::STREAM, SocketFlags::NONBLOCK, control).map_err(refused)?;
        listen(&socket, BACKLOG).map_err(|errno| call(errno.into()))?;
        Ok(Self { listener: UnixListener::from(socket), clients: Vec::new(), place })
    }

    /// Descriptors to poll, with whether each has something to write.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let clients = self.clients.iter().map(|client| (client.stream.as_fd(), !client.output.is_empty()));
        std::iter::once((self.listener.as_fd(), false)).chain(clients)
    }

    /// Takes in connections and requests, lets `answer` answer each, and sends what can be sent.
    ///
    /// A connection has one answer in waiting at most: its next request is read when that is out.
    pub fn serve(&mut self, answer: impl FnMut(Result<DataplaneRequest, String>) -> String) {
        self.serve_at(Instant::now(), answer);
    }

    fn serve_at(&mut self, now: Instant, mut answer: impl FnMut(Result<DataplaneRequest, String>) -> String) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.take_in(now, stream);
        }
        for client in &mut self.clients {
            client.send(now);
            client.receive(now);
            while client.output.is_empty()
                && let Some(line) = client.take_line()
            {
                let request = client.request(&line);
                client.output.extend_from_slice(answer(request).as_bytes());
                client.output.push(b'\n');
                client.send(now);
            }
            if client.output.is_empty() && client.input.len() > REQUEST_LEN_MAX {
                client.closing = true;
            }
        }
        self.clients.retain(|client| {
            let idle = now.saturating_duration_since(client.moved) >= IDLE;
            !(idle || client.closing && client.output.is_empty())
        });
    }

    /// Where there are as many as there may be, the one on which nothing has moved for the longest time goes:
    /// nobody locks others out by holding connections.
    fn take_in(&mut self, now: Instant, stream: UnixStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= CLIENTS_MAX
            && let Some((oldest, _)) = self.clients.iter().enumerate().min_by_key(|(_, client)| client.moved)
        {
            self.clients.remove(oldest);
        }
        let is_root = socket_peercred(&stream).is_ok_and(|peer| peer.uid.is_root());
        let (input, output) = (Vec::new(), Vec::new());
        self.clients.push(Client { stream, is_root, input, output, moved: now, closing: false });
    }
}

impl Client {
    /// What a line asks for. Control, which may be another user, reads and does not stop us.
    fn request(&self, line: &[u8]) -> Result<DataplaneRequest, String> {
        match serde_json::from_slice(line) {
            Ok(DataplaneRequest::Stop) if !self.is_root => {
                Err("only root may stop the data plane".to_owned())
            }
            parsed => parsed.map_err(|error| format!("not a request: {error}")),
        }
    }

    fn receive(&mut self, now: Instant) {
        let mut room = [0; 4096];
        while self.output.is_empty() && self.input.len() <= REQUEST_LEN_MAX {
            match self.stream.read(&mut room) {
                Ok(0) => {
                    self.closing = true;
                    return;
                }
                Ok(len) => {
                    self.input.extend_from_slice(&room[..len]);
                    self.moved = now;
                }
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

    fn send(&mut self, now: Instant) {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.stream.write(&self.output[sent..]) {
                Ok(len) => {
                    sent += len;
                    self.moved = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.output.clear();
                    self.closing = true;
                    return;
                }
            }
        }
        self.output.drain(..sent);
    }
}

impl Drop for QuerySocket {
    fn drop(&mut self) {
        self.place.remove();
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
        let mut socket = QuerySocket::bind(&path, None).expect("a socket");
        assert!(matches!(QuerySocket::bind(&path, None), Err(QueryError::InUse { .. })));
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
        let mut socket = QuerySocket::bind(&folder.join("query.sock"), None).expect("a socket");
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

    struct Bed(PathBuf, QuerySocket);

    impl Bed {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("pollux-query-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            let socket = QuerySocket::bind(&folder.join("query.sock"), None).expect("a socket");
            Self(folder, socket)
        }

        fn client(&self) -> UnixStream {
            let client = UnixStream::connect(self.0.join("query.sock")).expect("it listens");
            client.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
            client
        }

        fn is_closed(mut client: &UnixStream) -> bool {
            matches!(client.read(&mut [0; 8]), Ok(0))
        }
    }

    impl Drop for Bed {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn idle_connections_end_and_many_of_them_lock_nobody_out() {
        let mut bed = Bed::new("idle");
        let start = Instant::now();
        let mut held = Vec::new();
        for second in 0..100 {
            held.push(bed.client());
            bed.1.serve_at(start + Duration::from_millis(second), |_| String::new());
        }
        assert_eq!(bed.1.clients.len(), CLIENTS_MAX);
        assert!(Bed::is_closed(&held[0]), "the oldest made room");
        held[99].write_all(b"{\"op\":\"status\"}\n").expect("written");
        bed.1.serve_at(start + IDLE / 2, |_| "fine".to_owned());
        let mut answer = [0; 5];
        held[99].read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"fine\n");
        bed.1.serve_at(start + IDLE + Duration::from_secs(1), |_| String::new());
        assert_eq!(bed.1.clients.len(), 1, "only the one that asked something is left");
        bed.1.serve_at(start + 2 * IDLE, |_| String::new());
        assert!(bed.1.clients.is_empty());
    }

    #[test]
    fn answers_in_waiting_are_bounded_however_many_requests_wait() {
        let mut bed = Bed::new("bounded");
        let mut client = bed.client();
        client.set_nonblocking(true).expect("non-blocking");
        let requests = b"{\"op\":\"status\"}\n".repeat(200);
        let answer = "x".repeat(1 << 20);
        let mut answered = 0;
        for _ in 0..100 {
            let _ = client.write(&requests);
            bed.1.serve(|_| {
                answered += 1;
                answer.clone()
            });
            let waiting: usize = bed.1.clients.iter().map(|one| one.output.len()).sum();
            assert!(waiting <= (1 << 20) + 1, "{waiting} octets wait");
        }
        assert_eq!(answered, 1, "the first answer is not out yet");
    }
}
