//! A data plane without packets: the server side of the rings, a table of what it was recorded, and knobs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pollux_abi::command::{CHECKPOINT_WANTED, CommandError, PolicySpec, SaSpec};
use pollux_abi::{Command, Event, SaCounters, Ticket};
use pollux_config::api::{DataplaneRequest, PolicyRow, Reply, SaRow, fingerprint};
use pollux_shm::{AttachReply, DataplaneRing, Listener};
use serde_json::Value;

pub(crate) const WORKERS: u16 = 2;
const KEY: [u8; 32] = [9; 32];
/// Long enough for ten thousand SAs on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What the fake has been recorded.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) sas: HashMap<u64, SaRow>,
    /// Commands that each worker has taken, as words.
    pub(crate) at_workers: Vec<String>,
    pub(crate) policies: Vec<PolicySpec>,
    pending: Vec<PolicySpec>,
    pub(crate) commits: u32,
    pub(crate) adds: u32,
    slots: u32,
    /// SPIs that are refused.
    pub(crate) refuse: Vec<u32>,
    /// SPIs whose owner never answers.
    pub(crate) silent: Vec<u32>,
}

/// The fake. Dropping it is a kill -9 of the data plane.
pub(crate) struct Fake {
    recorded: Arc<Mutex<Recorded>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    sockets: [PathBuf; 2],
}

impl Fake {
    /// A fresh data plane in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        let sockets = [folder.join("attach.sock"), folder.join("dataplane.sock")];
        let recorded = Arc::new(Mutex::new(Recorded::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let listener =
            Listener::bind(&sockets[0], Some(nix::unistd::geteuid().as_raw())).expect("attach socket");
        let queries = UnixListener::bind(&sockets[1]).expect("query socket");
        queries.set_nonblocking(true).expect("non-blocking");
        let rings = {
            let (recorded, stop) = (Arc::clone(&recorded), Arc::clone(&stop));
            std::thread::spawn(move || serve_rings(&listener, &recorded, &stop))
        };
        let answers = {
            let (recorded, stop) = (Arc::clone(&recorded), Arc::clone(&stop));
            std::thread::spawn(move || serve_queries(&queries, &recorded, &stop))
        };
        Self { recorded, stop, threads: vec![rings, answers], sockets }
    }

    pub(crate) fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn serve_rings(listener: &Listener, recorded: &Mutex<Recorded>, stop: &AtomicBool) {
    let attach_reply =
        AttachReply { workers: WORKERS, spi_index_width: 14, sa_capacity: 16_384, fingerprint_key: KEY };
    let mut current = None;
    let mut rings: Vec<DataplaneRing> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(Some((attachment, fresh))) = listener.accept(&attach_reply, current.as_ref()) {
            current = Some(attachment);
            rings = fresh;
        }
        let mut busy = false;
        for (at, ring) in rings.iter_mut().enumerate() {
            while let Ok(Some(slot)) = ring.commands.read() {
                busy = true;
                let (ticket, command) = Command::decode(&slot);
                let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
                let result = match command {
                    Ok(command) if at == usize::from(WORKERS) => housekeeper(&mut recorded, command),
                    Ok(command) => worker(&mut recorded, at, &command),
                    Err(error) => Some(Err(error)),
                };
                drop(recorded);
                if let Some(result) = result {
                    acknowledge(ring, ticket, result);
                }
            }
            ring.events.wake();
        }
        if !busy {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn acknowledge(ring: &mut DataplaneRing, ticket: Ticket, result: Result<u32, CommandError>) {
    let slot = Event::Ack { ticket, result }.encode();
    let until = Instant::now() + PATIENCE;
    while ring.events.write(&slot).is_err() {
        ring.events.wake();
        assert!(Instant::now() < until, "control does not read its events");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn row(recorded: &mut Recorded, mut spec: SaSpec, key: &pollux_abi::KeyMaterial) -> SaRow {
    if spec.checkpoint == Some(CHECKPOINT_WANTED) {
        recorded.slots += 1;
        spec.checkpoint = Some(recorded.slots);
    }
    SaRow::new(&spec, fingerprint(&KEY, spec.suite, key), 0, 0, &SaCounters::default())
}

fn housekeeper(recorded: &mut Recorded, command: Command) -> Option<Result<u32, CommandError>> {
    Some(Ok(match command {
        Command::SaAdd(spec, _) if recorded.refuse.contains(&spec.spi.get()) => {
            return Some(Err(CommandError::Full));
        }
        Command::SaAdd(spec, key) => {
            recorded.adds += 1;
            let taken = |other: &SaRow| {
                other.direction
                    == if spec.direction == pollux_abi::command::Direction::Inbound { "in" } else { "out" }
                    && other.index == spec.index.0
            };
            if recorded.sas.values().any(taken) {
                return Some(Err(CommandError::Index));
            }
            let row = row(recorded, spec, &key);
            let slot = row.checkpoint.unwrap_or_default();
            recorded.sas.insert(row.id, row);
            slot
        }
        Command::SaReplace(spec, key) => {
            let row = if let Some(key) = &key {
                row(recorded, spec, key)
            } else {
                let before = recorded.sas.get(&spec.id.0)?;
                SaRow::new(&spec, before.fingerprint, 0, 0, &SaCounters::default())
            };
            recorded.sas.insert(row.id, row).map(|_| 0)?
        }
        Command::SaDelete(id) => match recorded.sas.remove(&id.0) {
            Some(_) => 0,
            None => return Some(Err(CommandError::Unknown)),
        },
        Command::PolicyBegin => {
            recorded.pending.clear();
            0
        }
        Command::PolicyAdd(policy) => {
            recorded.pending.push(policy);
            0
        }
        Command::PolicyCommit => {
            recorded.policies = std::mem::take(&mut recorded.pending);
            recorded.commits += 1;
            0
        }
        _ => return Some(Err(CommandError::Kind)),
    }))
}

fn worker(recorded: &mut Recorded, at: usize, command: &Command) -> Option<Result<u32, CommandError>> {
    let word = match command {
        Command::SaAdd(spec, _) if recorded.silent.contains(&spec.spi.get()) => return None,
        Command::SaAdd(spec, _) => {
            assert_eq!(usize::from(spec.owner.0), at, "an SA goes to its owner");
            assert_ne!(spec.checkpoint, Some(CHECKPOINT_WANTED), "the owner is recorded the slot");
            "add"
        }
        Command::SaReplace(..) => "replace",
        Command::SaRoute(route) => {
            assert_ne!(usize::from(route.owner.0), at, "a route goes to those who do not own the SA");
            "route"
        }
        Command::SaDelete(_) => "delete",
        _ => return Some(Err(CommandError::Kind)),
    };
    recorded.at_workers.push(word.to_owned());
    Some(Ok(0))
}

fn serve_queries(listener: &UnixListener, recorded: &Mutex<Recorded>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        stream.set_nonblocking(false).expect("blocking");
        let mut line = String::new();
        let _ = BufReader::new(&stream).read_line(&mut line);
        let recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match serde_json::from_str(&line) {
            Ok(DataplaneRequest::Sas) => {
                serde_json::to_vec(&Reply::Ok(recorded.sas.values().collect::<Vec<_>>()))
            }
            Ok(DataplaneRequest::Policies) => serde_json::to_vec(&Reply::Ok(
                recorded.policies.iter().map(PolicyRow::from).collect::<Vec<_>>(),
            )),
            _ => serde_json::to_vec(&Reply::<()>::Error("unknown".to_owned())),
        };
        let mut answer = answer.expect("JSON");
        answer.push(b'\n');
        let _ = (&stream).write_all(&answer);
    }
}

/// A folder with a configuration and a control process in a thread of the test.
pub(crate) struct Control {
    pub(crate) folder: PathBuf,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Control {
    /// A folder of its own for a test; nothing runs yet.
    pub(crate) fn folder(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pollux-control-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        Self { folder, thread: None }
    }

    /// Writes both files: `sas` are (name, direction, SPI, key number).
    pub(crate) fn configure(&self, sas: &[(String, &str, u32, u32)], more: &str) {
        use std::fmt::Write as _;
        use std::os::unix::fs::PermissionsExt;
        let mut text = format!(
            "[paths]\nrun_dir = \"{0}\"\nstate_dir = \"{0}\"\nsecrets = \"secrets.toml\"\n\
             [dataplane]\nwan = \"w\"\nlan = \"l\"\nqueues = {WORKERS}\n[control]\noverlap = 0\nsandbox = false\n",
            self.folder.display()
        );
        let mut secrets = "[keys]\n".to_owned();
        for (name, direction, spi, key) in sas {
            let _ = write!(
                text,
                "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nspi = {spi}\nsuite = \"aes128gcm16\"\nkey = \"{name}\"\n\
                 local = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nreqid = 1\n"
            );
            let _ = writeln!(secrets, "{name} = \"0x{key:08x}{spi:08x}{:024x}\"", 1);
        }
        text.push_str("[[policy]]\nname = \"all\"\naction = \"protect\"\nreqid = 1\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\n");
        text.push_str(more);
        std::fs::write(self.folder.join("pollux.toml"), text).expect("written");
        let file = self.folder.join("secrets.toml");
        std::fs::write(&file, secrets).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    }

    pub(crate) fn start(&mut self) {
        let (config, secrets) = pollux_config::load_with_secrets(&self.folder.join("pollux.toml"))
            .expect("a right configuration");
        self.thread = Some(std::thread::spawn(move || pollux_control::run(config, secrets)));
    }

    pub(crate) fn ask(&self, request: &str) -> Option<Value> {
        let stream = UnixStream::connect(self.folder.join("control/control.sock")).ok()?;
        writeln!(&stream, "{request}").ok()?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Waits until every SA that is wanted is installed, and the policies are in force.
    pub(crate) fn installed(&self, fake: &Fake, count: usize) {
        wait("everything to be installed", || {
            let status = self.ask(r#"{"op":"status"}"#).unwrap_or_default();
            status["ok"]["attached"] == true
                && status["ok"]["sas_installed"] == count
                && !fake.recorded().policies.is_empty()
        });
    }

    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            wait("control to take the word", || {
                self.ask(r#"{"op":"stop"}"#).is_some() || thread.is_finished()
            });
            let _ = thread.join();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Waits for something to become true; a test that waits without an answer has failed.
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited without an answer for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
