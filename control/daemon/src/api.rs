//! The control socket: reads requests, passes them to the shell, writes what it answers.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pollux_config::api::{
    ControlRequest, DataplaneRequest, Done, EventRecord, IkeSaRow, PolicyRow, REQUEST_LEN_MAX, ReloadReport,
    Reply, SaRow,
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::query::query;
use crate::report;

/// A request on its way to the shell.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) request: ControlRequest,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// What the shell says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The whole answer.
    Now(Value),
    /// One line why not.
    Error(String),
    /// Comes when the change is over.
    Change(oneshot::Receiver<Result<ReloadReport, String>>),
    /// Comes when a child is up.
    Done(oneshot::Receiver<Result<Done, String>>),
    /// The data plane's rows want names.
    SaNames(HashMap<u64, String>),
    /// The same for policies.
    PolicyNames(HashMap<u32, String>),
    /// The data plane's counters are to be put in.
    IkeSas(Vec<IkeSaRow>),
    /// Past events, then those to come.
    Stream(Vec<EventRecord>, broadcast::Receiver<EventRecord>),
}

/// Why there is no control socket.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    /// Another control process answers there.
    #[error("{0}: another pollux-control answers here; stop it, or give this one a run_dir of its own")]
    InUse(PathBuf),
    /// A system call failed.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Listens; root and our own user may connect.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, ApiError> {
    let fail = |error| ApiError::Io(path.to_owned(), error);
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ApiError::InUse(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(fail)?;
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

/// Serves one connection until it ends.
pub(crate) async fn serve(stream: UnixStream, shell: mpsc::Sender<Ask>, dataplane: PathBuf) {
    let us = nix::unistd::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == us) {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(REQUEST_LEN_MAX).unwrap_or(u64::MAX);
        match (&mut read).take(limit).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let served = match serde_json::from_slice(&line) {
            Ok(request) => answer(request, &shell, &dataplane, &mut write).await,
            Err(error) => put(&mut write, &Reply::<()>::Error(format!("this is no request: {error}"))).await,
        };
        if served.is_err() {
            return;
        }
    }
}

async fn answer(
    request: ControlRequest,
    shell: &mpsc::Sender<Ask>,
    dataplane: &Path,
    write: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let (reply, answer) = oneshot::channel();
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    shell.send(Ask { request, reply }).await.map_err(|_| gone())?;
    match answer.await.map_err(|_| gone())? {
        Answer::Now(value) => put(write, &Reply::Ok(value)).await,
        Answer::Error(reason) => put(write, &Reply::<()>::Error(reason)).await,
        Answer::Change(change) => put(write, &reply_of(change.await.map_err(|_| gone())?)).await,
        Answer::Done(done) => put(write, &reply_of(done.await.map_err(|_| gone())?)).await,
        Answer::SaNames(names) => {
            let mut rows: Result<Vec<SaRow>, _> = query(dataplane, &DataplaneRequest::Sas).await;
            for row in rows.iter_mut().flatten() {
                row.name = names.get(&row.id).cloned();
            }
            put(write, &reply_of(rows.map_err(|error| error.to_string()))).await
        }
        Answer::PolicyNames(names) => {
            let mut rows: Result<Vec<PolicyRow>, _> = query(dataplane, &DataplaneRequest::Policies).await;
            for row in rows.iter_mut().flatten() {
                row.name = names.get(&row.id).cloned();
            }
            put(write, &reply_of(rows.map_err(|error| error.to_string()))).await
        }
        Answer::IkeSas(mut rows) => {
            // Without a data plane the SAs are still worth showing.
            if let Ok(sas) = query::<Vec<SaRow>>(dataplane, &DataplaneRequest::Sas).await {
                report::with_counters(&mut rows, &sas);
            }
            put(write, &Reply::Ok(rows)).await
        }
        Answer::Stream(past, mut events) => {
            for record in past {
                put(write, &record).await?;
            }
            loop {
                match events.recv().await {
                    Ok(record) => put(write, &record).await?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        let text = format!("{missed} events were not shown: the reader is too slow");
                        let event = "events-missed".to_owned();
                        let level = "warn".to_owned();
                        put(write, &EventRecord { event, level, text, ..EventRecord::default() }).await?;
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                }
            }
        }
    }
}

fn reply_of<T>(result: Result<T, String>) -> Reply<T> {
    match result {
        Ok(value) => Reply::Ok(value),
        Err(reason) => Reply::Error(reason),
    }
}

async fn put(write: &mut OwnedWriteHalf, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    write.write_all(&line).await
}
