//! The one loop: waits for whatever comes next, and gives it to the shell.

use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pollux_abi::wipe_stack;
use pollux_config::api::{ControlRequest, DataplaneRequest};
use tokio::net::{UnixDatagram, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use crate::api::{self, Ask, Clients};
use crate::query::{PATIENCE, query};
use crate::rings::{Descriptors, Rings};
use crate::shell::{Attached, Shell};
use crate::udp::{Datagram, Sockets};

/// Pause between attempts to attach: a data plane that comes back is found within a blink.
const ATTACH_PAUSE: Duration = Duration::from_millis(200);
/// Requests that wait for the shell.
const ASKS_MAX: usize = 64;
/// Datagrams that are taken in one turn, before rings and timers have theirs.
const DATAGRAMS_MAX: usize = 64;
/// How long peers may take to answer that their IKE SAs are deleted, when control is told to stop.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the task that answers `stop` has to write its line.
const LAST_ANSWER: Duration = Duration::from_millis(50);
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pulls of the doorbell that are taken at once.
const PULLS_MAX: usize = 64;
/// An idle loop looks around so often, should a wake-up ever be missed.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// The attachment's descriptors, as the runtime wants them.
struct Link {
    doorbell: UnixDatagram,
    /// A packet socket in a stream's clothes: nothing is ever read from it.
    connection: UnixStream,
    /// Descriptors of the IKE sockets that the data plane has been passed.
    passed: Vec<RawFd>,
}

impl Link {
    fn new(descriptors: Descriptors) -> std::io::Result<Self> {
        let doorbell = std::os::unix::net::UnixDatagram::from(descriptors.doorbell.into_fd());
        let connection = std::os::unix::net::UnixStream::from(descriptors.connection);
        doorbell.set_nonblocking(true)?;
        connection.set_nonblocking(true)?;
        Ok(Self {
            doorbell: UnixDatagram::from_std(doorbell)?,
            connection: UnixStream::from_std(connection)?,
            passed: Vec::new(),
        })
    }

    /// Passes the IKE sockets to the data plane, once for each set of them: what they send to a peer inside a protected
    /// prefix passes the guard by their cookies.
    fn pass_sockets(&mut self, shell: &Shell) {
        let sockets = shell.sockets.as_ref().map(Sockets::descriptors).unwrap_or_default();
        let numbers: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        if numbers == self.passed {
            return;
        }
        match pollux_shm::send_sockets(&self.connection, &sockets) {
            Ok(()) => self.passed = numbers,
            // The next turn tries again.
            Err(error) => tracing::warn!(event = "sockets-not-passed", "{error}"),
        }
    }

    /// Waits until the doorbell rings, and forgets all pulls so far.
    async fn rung(&self) {
        if self.doorbell.readable().await.is_ok() {
            let mut pull = [0; 8];
            // Bounded, should the other side never stop pulling.
            for _ in 0..PULLS_MAX {
                if self.doorbell.try_recv(&mut pull).is_err() {
                    return;
                }
            }
        }
    }
}

type Attaching = JoinHandle<Result<(Attached, Descriptors), String>>;

/// Serves until told to stop.
pub(crate) async fn drive(mut shell: Shell, listener: UnixListener) -> std::io::Result<()> {
    let (ask_sender, mut asks) = mpsc::channel(ASKS_MAX);
    let dataplane = shell.config.paths.dataplane_socket();
    tokio::spawn(accept(listener, ask_sender, dataplane));
    let mut datagrams = shell.datagrams.take();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut link: Option<Link> = None;
    let mut attaching: Option<Attaching> = Some(attach(&shell, Duration::ZERO));
    let mut leaving: Option<Instant> = None;
    loop {
        let now = Instant::now();
        shell.turn(now);
        if std::mem::take(&mut shell.had_keys) {
            wipe_stack();
        }
        if leaving.is_some_and(|until| until <= now || !shell.has_ike_sas()) {
            // The answer is written by another task.
            tokio::time::sleep(LAST_ANSWER).await;
            return Ok(());
        }
        if let Some(link) = &mut link {
            link.pass_sockets(&shell);
        }
        if shell.rings.is_none() && attaching.is_none() {
            link = None;
            attaching = Some(attach(&shell, ATTACH_PAUSE));
        }
        if shell.rings.as_mut().is_some_and(|rings| !rings.prepare_sleep()) {
            // An event came in between. Others get their turn, too.
            tokio::task::yield_now().await;
            continue;
        }
        let idle = now + IDLE_MAX;
        let deadline = shell.deadline().into_iter().chain(leaving).fold(idle, Instant::min);
        tokio::select! {
            () = rung(link.as_ref()) => {}
            () = hung_up(link.as_ref()) => {
                link = None;
                shell.detached(Instant::now(), "pollux-dataplane has ended");
            }
            attached = finished(&mut attaching) => {
                attaching = None;
                link = settle(&mut shell, attached);
            }
            datagram = next(&mut datagrams) => take(&mut shell, &datagram, datagrams.as_mut()),
            ask = asks.recv() => if let Some(ask) = ask {
                let stop = ask.request == ControlRequest::Stop;
                let answer = shell.request(Instant::now(), ask.request);
                // Whoever asked may be gone.
                let _ = ask.reply.send(answer);
                datagrams = shell.datagrams.take().or(datagrams);
                if stop {
                    shell.leave(Instant::now());
                    leaving = Some(Instant::now() + FAREWELL);
                }
            },
            _ = hangup.recv() => {
                if let api::Answer::Error(reason) = shell.request(Instant::now(), ControlRequest::Reload) {
                    tracing::error!(event = "reload-refused", "{reason}");
                }
            }
            () = either(&mut terminate, &mut interrupt) => return Ok(()),
            () = sleep_until(deadline.into()) => {}
        }
    }
}

async fn accept(listener: UnixListener, asks: mpsc::Sender<Ask>, dataplane: PathBuf) {
    let mut clients = Clients::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => clients.serve(stream, asks.clone(), dataplane.clone()),
            // Out of descriptors, most likely: wait for some to come free.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Attaches and reads back what is installed, beside the loop.
fn attach(shell: &Shell, pause: Duration) -> Attaching {
    let socket = shell.config.paths.attach_socket();
    let dataplane = shell.config.paths.dataplane_socket();
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        let attached = tokio::task::spawn_blocking(move || Rings::attach(&socket)).await;
        let (rings, descriptors) = attached.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let sas = query(&dataplane, &DataplaneRequest::Sas, PATIENCE).await.map_err(|e| e.to_string())?;
        let policies = query(&dataplane, &DataplaneRequest::Policies, PATIENCE).await;
        let policies = policies.map_err(|e| e.to_string())?;
        Ok((Attached { rings, sas, policies }, descriptors))
    })
}

fn settle(shell: &mut Shell, attached: Result<(Attached, Descriptors), String>) -> Option<Link> {
    let linked = attached.and_then(|(attached, descriptors)| {
        Link::new(descriptors).map(|link| (attached, link)).map_err(|error| error.to_string())
    });
    match linked {
        Ok((attached, link)) => {
            shell.attached(Instant::now(), attached);
            Some(link)
        }
        Err(reason) => {
            if shell.detached_reason.as_ref() != Some(&reason) {
                tracing::warn!(event = "not-attached", "{reason}");
                shell.detached_reason = Some(reason);
            }
            None
        }
    }
}

async fn rung(link: Option<&Link>) {
    match link {
        Some(link) => link.rung().await,
        None => std::future::pending().await,
    }
}

/// Nothing is ever sent over the connection: what is readable is its end.
async fn hung_up(link: Option<&Link>) {
    match link {
        Some(link) => {
            let _ = link.connection.readable().await;
        }
        None => std::future::pending().await,
    }
}

async fn finished(attaching: &mut Option<Attaching>) -> Result<(Attached, Descriptors), String> {
    match attaching {
        Some(task) => task.await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
    }
}

async fn next(datagrams: &mut Option<mpsc::Receiver<Datagram>>) -> Datagram {
    match datagrams {
        Some(datagrams) => match datagrams.recv().await {
            Some(datagram) => datagram,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

fn take(shell: &mut Shell, first: &Datagram, more: Option<&mut mpsc::Receiver<Datagram>>) {
    let now = Instant::now();
    shell.datagram(now, first);
    let Some(more) = more else { return };
    for _ in 1..DATAGRAMS_MAX {
        let Ok(datagram) = more.try_recv() else { return };
        shell.datagram(now, &datagram);
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
