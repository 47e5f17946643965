//! Questions to the data plane's socket: what is installed, and what it counts.

use std::path::Path;
use std::time::Duration;

use pollux_config::api::{DataplaneRequest, Reply};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The answer with 65,536 SAs is some 60 MB; more is no answer of ours.
const ANSWER_LEN_MAX: u64 = 256 << 20;
/// For reading back what is installed: a housekeeper that compiles policies answers late, not never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Why a question got no answer.
#[derive(Debug, Error)]
pub(crate) enum QueryError {
    /// The socket.
    #[error("the data plane's socket: {0}")]
    Io(#[from] std::io::Error),
    /// What came is no answer.
    #[error("the data plane's answer can't be read: {0}")]
    Format(#[from] serde_json::Error),
    /// It said no.
    #[error("the data plane says: {0}")]
    Refused(String),
    /// It said nothing.
    #[error("the data plane has not answered for {0:?}: is it stopped? Look at `pollux status`")]
    Silent(Duration),
}

/// Asks one question.
pub(crate) async fn query<T: DeserializeOwned>(
    socket: &Path,
    request: &DataplaneRequest,
    patience: Duration,
) -> Result<T, QueryError> {
    tokio::time::timeout(patience, ask(socket, request)).await.map_err(|_| QueryError::Silent(patience))?
}

async fn ask<T: DeserializeOwned>(socket: &Path, request: &DataplaneRequest) -> Result<T, QueryError> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(ANSWER_LEN_MAX)).read_until(b'\n', &mut answer).await?;
    match serde_json::from_slice(&answer)? {
        Reply::Ok(found) => Ok(found),
        Reply::Error(reason) => Err(QueryError::Refused(reason)),
    }
}
