use std::os::unix::fs::{MetadataExt, PermissionsExt};

use pollux_abi::{Command, Event, SaId, Ticket};
use proptest::prelude::*;

use super::*;

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pollux-shm-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("attach.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said() -> AttachReply {
    AttachReply { workers: 2, spi_index_width: 14, sa_capacity: 16_384, fingerprint_key: [7; 32] }
}

/// Lets `peer` connect from another thread while this one accepts.
fn meet<T: Send + 'static>(
    listener: &Listener,
    current: Option<&Attachment>,
    peer: impl FnOnce() -> T + Send + 'static,
) -> (Result<(Attachment, Vec<DataplaneRing>), HandshakeError>, T) {
    let thread = std::thread::spawn(peer);
    let mut set = [PollFd::new(listener, PollFlags::IN)];
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut set, Some(&limit)), Ok(1), "nobody connected");
    let met = listener.accept(&said(), current).map(|met| met.expect("somebody waits"));
    (met, thread.join().expect("peer"))
}

#[test]
fn control_attaches_and_both_rings_carry() {
    let folder = Folder::new("attach");
    let path = folder.socket();
    let listener = Listener::bind(&path, None).expect("listener");
    assert!(listener.accept(&said(), None).expect("no error").is_none(), "nobody waits");
    let (met, session) = meet(&listener, None, move || Session::attach(&path));
    let (attachment, mut dataplane) = met.expect("attached");
    let mut session = session.expect("attached");
    assert_eq!(session.attach_reply, said());
    assert_eq!((session.rings.len(), dataplane.len()), (3, 3));
    assert_eq!(attachment.pid(), std::process::id());
    session.rings[2].commands.write(&Command::Barrier.encode(Ticket(9))).expect("room");
    let slot = dataplane[2].commands.read().expect("honest").expect("one waits");
    assert!(matches!(Command::decode(&slot), (Ticket(9), Ok(Command::Barrier))));
    let event = Event::FirstPacket { sa: SaId(3) };
    dataplane[0].events.write(&event.encode()).expect("room");
    let slot = session.rings[0].events.read().expect("honest").expect("one waits");
    assert_eq!(Event::decode(&slot), Some(event));
    assert!(session.rings.iter_mut().all(|ring| ring.events.prepare_sleep()));
    dataplane[1].events.write(&event.encode()).expect("room");
    dataplane[1].events.wake();
    assert_eq!(session.doorbell.quiet(), 1);
}

#[test]
fn second_control_is_refused_until_the_first_is_gone_and_then_gets_fresh_rings() {
    let folder = Folder::new("second");
    let path = folder.socket();
    let listener = Listener::bind(&path, None).expect("listener");
    let again = path.clone();
    let (met, first) = meet(&listener, None, move || Session::attach(&again));
    let (attachment, _rings) = met.expect("attached");
    let mut first = first.expect("attached");
    first.rings[0].commands.write(&Command::Barrier.encode(Ticket(1))).expect("room");
    let again = path.clone();
    let (met, second) = meet(&listener, Some(&attachment), move || Session::attach(&again));
    let own = std::process::id();
    assert!(matches!(
        met,
        Err(HandshakeError::Refused { refusal: Refusal::Attached { pid }, .. }) if pid == own
    ));
    assert!(matches!(second, Err(AttachError::Refused(Refusal::Attached { pid })) if pid == own));
    assert!(attachment.is_alive());
    drop(first);
    assert!(!attachment.is_alive());
    let (met, third) = meet(&listener, Some(&attachment), move || Session::attach(&path));
    let (_attachment, mut rings) = met.expect("attached");
    assert!(rings[0].commands.read().expect("honest").is_none(), "nothing of the dead one lingers");
    assert!(third.is_ok());
}

#[test]
fn other_version_and_silent_peer_are_turned_away() {
    let folder = Folder::new("version");
    let path = folder.socket();
    let listener = Listener::bind(&path, None).expect("listener");
    let dial = |path: &Path, octets: &'static [u8]| {
        let path = path.to_owned();
        move || {
            let s = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("socket");
            rustix::net::connect(&s, &SocketAddrUnix::new(&path).expect("path")).expect("connect");
            if !octets.is_empty() {
                rustix::net::send(&s, octets, SendFlags::NOSIGNAL).expect("send");
            }
            let mut answer = [0; 100];
            let got = rustix::net::recv(&s, &mut answer, RecvFlags::empty()).map_or(0, |(n, _)| n);
            wire::answer(&answer[..got])
        }
    };
    let (met, answer) = meet(&listener, None, dial(&path, b"XLOP\xff\0\0\0"));
    let refusal = Refusal::Version { dataplane: ABI_VERSION, control: 255 };
    assert!(matches!(met, Err(HandshakeError::Refused { refusal: r, .. }) if r == refusal));
    assert_eq!(answer, Some(Err(refusal)));
    for octets in [&b""[..], b"short", b"a hello that is far too long to be one", b"GET / HT"] {
        let (met, answer) = meet(&listener, None, dial(&path, octets));
        assert!(matches!(met, Err(HandshakeError::NoHello { .. })), "{octets:?}");
        assert_eq!(answer, None);
    }
}

#[test]
fn stale_socket_is_replaced_and_live_one_is_not() {
    let folder = Folder::new("stale");
    let path = folder.socket();
    let first = Listener::bind(&path, None).expect("listener");
    assert!(matches!(Listener::bind(&path, None), Err(HandshakeError::InUse { .. })));
    // As after kill -9: the socket is closed, its name stays.
    let Listener { socket, .. } = &first;
    rustix::net::shutdown(socket, rustix::net::Shutdown::Both).expect("shutdown");
    let stale = first.socket.try_clone().expect("dup");
    std::mem::forget(first);
    drop(stale);
    let error = Session::attach(&path).expect_err("nobody listens");
    assert!(matches!(error, AttachError::NotRunning { .. }), "{error}");
    assert!(Listener::bind(&path, None).is_ok());
}

#[test]
fn process_of_another_user_is_refused_with_its_reason() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to become another user");
        return;
    }
    let folder = Folder::new("user");
    let path = folder.socket();
    rustix::fs::chmod(&folder.0, rustix::fs::Mode::from_raw_mode(0o755)).expect("chmod");
    let listener = Listener::bind(&path, Some(4242)).expect("listener");
    let about = std::fs::metadata(&path).expect("bound");
    assert_eq!((about.uid(), about.mode() & 0o777), (4242, 0o660), "others cannot even connect");
    // Should the mode have been opened since, credentials decide.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("opened");
    let (met, answer) = meet(&listener, None, move || {
        // This thread alone becomes `nobody`; it ends with the closure.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).expect("setuid");
        Session::attach(&path)
    });
    let refusal = Refusal::User { uid: 65_534 };
    assert!(matches!(met, Err(HandshakeError::Refused { refusal: r, .. }) if r == refusal));
    assert!(matches!(answer, Err(AttachError::Refused(r)) if r == refusal));
}

proptest! {
    #[test]
    fn random_answers_never_panic_and_never_exceed_the_limits(octets in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut octets = octets;
        if octets.len() >= 8 {
            octets[..4].copy_from_slice(&pollux_abi::layout::MAGIC.to_le_bytes());
            octets[5..8].fill(0);
        }
        if let Some(Ok(attach_reply)) = wire::answer(&octets) {
            prop_assert!((1..=pollux_abi::layout::WORKERS_MAX).contains(&attach_reply.workers));
        }
    }
}
