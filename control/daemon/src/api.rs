//! The control socket: reads requests, passes them to the shell, writes what it answers.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pollux_config::api::{
    ControlRequest, DataplaneRequest, Done, EventRecord, IkeSaRow, PolicyRow, REQUEST_LEN_MAX, ReloadReport,
    Reply, SaRow,
};
use pollux_shm::{RunDirError, SocketPlace};
use rustix::net::{SocketFlags, SocketType};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::query::query;
use crate::report;

/// Connections at the same time.
const CLIENTS_MAX: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// A connection on which no request comes for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// A reader that takes nothing of an answer for so long is let go.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Listeners to events at the same time: they stay for as long as they like, and must leave room for others.
const STREAMS_MAX: usize = 32;
/// Answers of the data plane that are held at the same time; one may be 60 MB.
const QUERIES_MAX: usize = 4;
/// The command asks for at most five seconds, and is to hear that it is the data plane that does not answer.
const QUERY_PATIENCE: Duration = Duration::from_secs(4);

/// How long the socket of a control process that is dying may still answer.
pub(crate) const DYING: Duration = Duration::from_secs(3);
/// Between two tries to take it over.
const DYING_PAUSE: Duration = Duration::from_millis(20);

static STREAMS: AtomicUsize = AtomicUsize::new(0);
static QUERIES: Semaphore = Semaphore::const_new(QUERIES_MAX);

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
    /// Its folder, or what lies at its name.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
}

/// Listens; root and our own user may connect. The place is for its end.
fn listen(path: &Path) -> Result<(UnixListener, SocketPlace), ApiError> {
    let fail = |error| ApiError::Io(path.to_owned(), error);
    let place = SocketPlace::of(path)?;
    let socket =
        place.bind(SocketType::STREAM, SocketFlags::NONBLOCK, None).map_err(|error| match error {
            RunDirError::InUse { path } => ApiError::InUse(path),
            other => other.into(),
        })?;
    rustix::net::listen(&socket, BACKLOG).map_err(|errno| fail(errno.into()))?;
    Ok((UnixListener::from_std(socket.into()).map_err(fail)?, place))
}

/// As [`listen`], but waits up to `patience` while the socket of a predecessor that is dying still answers.
pub(crate) async fn listen_once_free(
    path: &Path,
    patience: Duration,
) -> Result<(UnixListener, SocketPlace), ApiError> {
    let until = Instant::now() + patience;
    loop {
        match listen(path) {
            Err(ApiError::InUse(_)) if Instant::now() < until => sleep(DYING_PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// The connections that are open, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Clients {
    open: Vec<Client>,
    idle: Duration,
}

#[derive(Debug)]
struct Client {
    /// Its request is being answered.
    is_busy: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { open: Vec::new(), idle: IDLE }
    }
}

impl Clients {
    /// Serves one more. Where there are as many as there may be, the oldest that waits for nothing goes:
    /// nobody locks others out by holding connections.
    pub(crate) fn serve(&mut self, stream: UnixStream, shell: mpsc::Sender<Ask>, dataplane: PathBuf) {
        self.open.retain(|client| !client.task.is_finished());
        if self.open.len() >= CLIENTS_MAX {
            let idle = self.open.iter().position(|client| !client.is_busy.load(Ordering::Relaxed));
            self.open.remove(idle.unwrap_or(0)).task.abort();
        }
        let is_busy = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(serve(stream, shell, dataplane, (Arc::clone(&is_busy), self.idle)));
        self.open.push(Client { is_busy, task });
    }
}

/// Serves one connection until it ends.
async fn serve(
    stream: UnixStream,
    shell: mpsc::Sender<Ask>,
    dataplane: PathBuf,
    (is_busy, idle): (Arc<AtomicBool>, Duration),
) {
    let us = nix::unistd::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == us) {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        is_busy.store(false, Ordering::Relaxed);
        let mut line = Vec::new();
        let limit = u64::try_from(REQUEST_LEN_MAX).unwrap_or(u64::MAX);
        match timeout(idle, (&mut read).take(limit).read_until(b'\n', &mut line)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        }
        if line.last() != Some(&b'\n') {
            // Cut off, or too long: what follows would be taken for requests of its own.
            let _ = put(&mut write, &Reply::<()>::Error("this is no whole request".to_owned())).await;
            return;
        }
        is_busy.store(true, Ordering::Relaxed);
        let served = match serde_json::from_slice(&line) {
            Ok(request) => answer(request, &shell, &dataplane, &mut write).await,
            Err(error) => put(&mut write, &Reply::<()>::Error(format!("this is no request: {error}"))).await,
        };
        if served.is_err() {
            return;
        }
    }
}

/// A place among the listeners to events, given back at its end.
struct StreamPlace;

impl StreamPlace {
    fn take() -> Option<Self> {
        let before = STREAMS.fetch_add(1, Ordering::Relaxed);
        let place = Self;
        (before < STREAMS_MAX).then_some(place)
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the data plane on behalf of the operator.
async fn rows<T: serde::de::DeserializeOwned>(
    dataplane: &Path,
    request: &DataplaneRequest,
) -> Result<T, String> {
    // The semaphore is never closed.
    let _one_of_few = QUERIES.acquire().await.map_err(|error| error.to_string())?;
    query(dataplane, request, QUERY_PATIENCE).await.map_err(|error| error.to_string())
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
            let mut rows: Result<Vec<SaRow>, _> = rows(dataplane, &DataplaneRequest::Sas).await;
            for row in rows.iter_mut().flatten() {
                row.name = names.get(&row.id).cloned();
            }
            put(write, &reply_of(rows)).await
        }
        Answer::PolicyNames(names) => {
            let mut rows: Result<Vec<PolicyRow>, _> = rows(dataplane, &DataplaneRequest::Policies).await;
            for row in rows.iter_mut().flatten() {
                row.name = names.get(&row.id).cloned();
            }
            put(write, &reply_of(rows)).await
        }
        Answer::IkeSas(mut rows) => {
            // Without a data plane the SAs are still worth showing.
            if let Ok(sas) = self::rows::<Vec<SaRow>>(dataplane, &DataplaneRequest::Sas).await {
                report::with_counters(&mut rows, &sas);
            }
            put(write, &Reply::Ok(rows)).await
        }
        Answer::Stream(past, mut events) => {
            let Some(_place) = StreamPlace::take() else {
                let reason = format!("{STREAMS_MAX} listeners to events are as many as there may be");
                return put(write, &Reply::<()>::Error(reason)).await;
            };
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
    timeout(WRITE_PATIENCE, write.write_all(&line)).await.map_err(io::Error::from)?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients over socket pairs, and a shell that answers each request with `true`.
    struct Bed {
        clients: Clients,
        shell: mpsc::Sender<Ask>,
    }

    impl Bed {
        fn new() -> Self {
            let (shell, mut asks) = mpsc::channel::<Ask>(4);
            tokio::spawn(async move {
                while let Some(ask) = asks.recv().await {
                    let _ = ask.reply.send(Answer::Now(Value::Bool(true)));
                }
            });
            Self { clients: Clients { idle: Duration::from_secs(1), ..Clients::default() }, shell }
        }

        fn client(&mut self) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            self.clients.serve(theirs, self.shell.clone(), PathBuf::from("/nowhere"));
            ours
        }
    }

    /// All that comes until the connection ends.
    async fn rest(stream: &mut UnixStream) -> String {
        let mut text = String::new();
        // A reset is an end, too.
        let _ = timeout(Duration::from_mins(1), stream.read_to_string(&mut text)).await.expect("an end");
        text
    }

    #[tokio::test(flavor = "current_thread")]
    async fn socket_of_a_dying_predecessor_is_waited_for_and_that_of_a_living_one_is_not_taken() {
        let path = std::env::temp_dir().join(format!("pollux-control-dying-{}", std::process::id()));
        let dying = std::os::unix::net::UnixListener::bind(&path).expect("free");
        let end = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(dying);
        });
        let successor = listen_once_free(&path, DYING).await;
        end.join().expect("no panic");
        assert!(successor.is_ok(), "{successor:?}");
        let second = listen_once_free(&path, Duration::from_millis(100)).await;
        assert!(matches!(second, Err(ApiError::InUse(_))), "{second:?}");
        successor.expect("it came up").1.remove();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn idle_connections_end_and_many_of_them_lock_nobody_out() {
        let mut bed = Bed::new();
        let mut held: Vec<UnixStream> = (0..10 * CLIENTS_MAX).map(|_| bed.client()).collect();
        assert_eq!(bed.clients.open.len(), CLIENTS_MAX);
        let mut last = held.pop().expect("many");
        last.write_all(b"{\"op\":\"status\"}\n").await.expect("written");
        let mut answer = [0; 12];
        last.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"{\"ok\":true}\n");
        assert_eq!(rest(&mut held[0]).await, "", "the oldest made room");
        assert_eq!(rest(&mut last).await, "", "nothing more came, and it was closed");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_line_that_is_too_long_closes_the_connection() {
        let mut bed = Bed::new();
        let mut client = bed.client();
        let mut line = vec![b'x'; REQUEST_LEN_MAX];
        line.extend_from_slice(b"{\"op\":\"stop\"}\n");
        // It may be closed before all is written.
        let _ = client.write_all(&line).await;
        let said = rest(&mut client).await;
        assert!(said.is_empty() || said == "{\"error\":\"this is no whole request\"}\n", "{said}");
    }
}
