//! One request and its reply over a daemon's Unix socket.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use pollux_config::Paths;
use pollux_config::api::{ControlRequest, DataplaneRequest, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A daemon that runs answers in milliseconds; one that is stopped, or hangs, never does.
const ANSWER: Duration = Duration::from_secs(5);
/// Longer than any command takes that waits for others: `initiate` waits for a handshake on a bad link.
const PATIENCE: Duration = Duration::from_mins(2);

/// Asks the data plane.
pub(crate) fn dataplane<T: DeserializeOwned>(paths: &Paths, request: &DataplaneRequest) -> Result<T> {
    let mut stream = open(&paths.dataplane_socket(), "the data plane", request)?;
    answer(&mut stream, "the data plane", ANSWER)
}

/// Asks control.
pub(crate) fn control<T: DeserializeOwned>(paths: &Paths, request: &ControlRequest) -> Result<T> {
    let (socket, who) = (paths.control_socket(), "control");
    if !waits_for_others(request) {
        return answer(&mut open(&socket, who, request)?, who, ANSWER);
    }
    // Whether it answers at all is known before what it has to wait for.
    let mut stream = open(&socket, who, &ControlRequest::Status)?;
    answer::<Value>(&mut stream, who, ANSWER)?;
    send(stream.get_mut(), who, request)?;
    answer(&mut stream, who, PATIENCE)
}

/// Whether the answer comes when peers or the data plane have done something.
fn waits_for_others(request: &ControlRequest) -> bool {
    matches!(
        request,
        ControlRequest::Reload
            | ControlRequest::Initiate { .. }
            | ControlRequest::Terminate { .. }
            | ControlRequest::Rekey { .. }
    )
}

/// Whether a daemon holds its socket; it may be stopped, or hang.
pub(crate) fn is_running(socket: &Path) -> bool {
    matches!(try_connect(socket), Ok(_) | Err(Errno::EAGAIN))
}

/// Connects to `socket` and sends `request`; the replies come as lines.
pub(crate) fn open<Q: Serialize>(socket: &Path, who: &str, request: &Q) -> Result<BufReader<UnixStream>> {
    let mut stream = connected(socket, who)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    send(&mut stream, who, request)?;
    Ok(BufReader::new(stream))
}

/// Connects, without waiting for a daemon that takes no connections any more.
fn connected(path: &Path, who: &str) -> Result<UnixStream> {
    match try_connect(path) {
        // So many wait already.
        Err(Errno::EAGAIN) => bail!("{}", silent(who, Duration::ZERO)),
        other => {
            other.with_context(|| format!("{who} is not running: {}; `pollux up` starts it", path.display()))
        }
    }
}

fn try_connect(path: &Path) -> Result<UnixStream, Errno> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &address)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false).map_err(|_| Errno::EBADF)?;
    Ok(stream)
}

fn send<Q: Serialize>(stream: &mut UnixStream, who: &str, request: &Q) -> Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(|| format!("asking {who}"))
}

fn answer<T: DeserializeOwned>(
    stream: &mut BufReader<UnixStream>,
    who: &str,
    patience: Duration,
) -> Result<T> {
    stream.get_ref().set_read_timeout(Some(patience))?;
    let mut line = String::new();
    stream.read_line(&mut line).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => anyhow::Error::msg(silent(who, patience)),
        _ => anyhow::Error::from(error).context(format!("{who} did not answer")),
    })?;
    match serde_json::from_str(&line).with_context(|| format!("{who} answered: {}", line.trim()))? {
        Reply::Ok(answer) => Ok(answer),
        Reply::Error(reason) => bail!("{reason}"),
    }
}

fn silent(who: &str, waited: Duration) -> String {
    let process = if who == "control" { "pollux-control" } else { "pollux-dataplane" };
    format!(
        "{who} does not answer (waited {} s): {process} is stopped or hangs; look at it with ps, wake it with \
         kill -CONT, or end it and run `pollux up`",
        waited.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_daemon_that_does_not_answer_is_named_within_six_seconds() {
        let folder = std::env::temp_dir().join(format!("pollux-cli-socket-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("control")).expect("a folder");
        let paths = Paths { run_dir: folder.clone(), state_dir: folder.clone(), secrets: None };
        // They listen, and accept nothing: what a stopped process looks like from outside.
        let plane = UnixListener::bind(paths.dataplane_socket()).expect("bound");
        let _control = UnixListener::bind(paths.control_socket()).expect("bound");
        let begun = Instant::now();
        let ask = |slow: bool| {
            let request = if slow { ControlRequest::Reload } else { ControlRequest::Status };
            control::<Value>(&paths, &request).expect_err("nobody is there").to_string()
        };
        let lines = std::thread::scope(|scope| {
            let asked = [scope.spawn(|| ask(false)), scope.spawn(|| ask(true))];
            let plane = dataplane::<Value>(&paths, &DataplaneRequest::Status).expect_err("nor there");
            let [quick, slow] = asked.map(|thread| thread.join().expect("no panic"));
            [quick, slow, plane.to_string()]
        });
        assert!(begun.elapsed() < ANSWER + Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(lines[0].contains("pollux-control is stopped") && lines[1] == lines[0], "{lines:?}");
        assert!(lines[2].contains("pollux-dataplane is stopped"), "{lines:?}");
        // A backlog that is full ends it at once.
        let held: Vec<_> = std::iter::from_fn(|| connected(&paths.dataplane_socket(), "x").ok()).collect();
        assert!(held.len() < 10_000 && begun.elapsed() < ANSWER + Duration::from_secs(2));
        drop(plane);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
