//! One request and its reply over a daemon's Unix socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pollux_config::Paths;
use pollux_config::api::{ControlRequest, DataplaneRequest, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longer than any command takes: `initiate` waits for a handshake on a bad link.
const PATIENCE: Duration = Duration::from_mins(2);

/// Asks the data plane.
pub(crate) fn dataplane<T: DeserializeOwned>(paths: &Paths, request: &DataplaneRequest) -> Result<T> {
    ask(&paths.dataplane_socket(), "the data plane", request)
}

/// Asks control.
pub(crate) fn control<T: DeserializeOwned>(paths: &Paths, request: &ControlRequest) -> Result<T> {
    ask(&paths.control_socket(), "control", request)
}

/// Connects to `socket` and sends `request`; the replies come as lines.
pub(crate) fn open<Q: Serialize>(socket: &Path, who: &str, request: &Q) -> Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("{who} is not running: {}; `pollux up` starts it", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(|| format!("asking {who}"))?;
    Ok(BufReader::new(stream))
}

fn ask<Q: Serialize, T: DeserializeOwned>(socket: &Path, who: &str, request: &Q) -> Result<T> {
    let mut line = String::new();
    open(socket, who, request)?.read_line(&mut line).with_context(|| format!("{who} did not answer"))?;
    match serde_json::from_str(&line).with_context(|| format!("{who} answered: {}", line.trim()))? {
        Reply::Ok(answer) => Ok(answer),
        Reply::Error(reason) => bail!("{reason}"),
    }
}
