//! Bring-up: from a configuration to running workers, with what was got beside what was asked.

mod error;

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pollux_abi::layout::SPI_INDEX_WIDTH_MAX;
use pollux_abi::{CoreId, WorkerId};
use pollux_aead::EngineChoice;
use pollux_config::api::Effective;
use pollux_config::{CONTROL_DIR, Config, IdleMode};
use pollux_ebpf::{Capacity, Role, SteerError, Steering, bpffs};
use pollux_esp::{Engine, EngineConfig, EngineCounters, SaCounterTable};
use pollux_packet::PortSlot;
use pollux_port::{Umem, UmemConfig};
use pollux_shm::{AttachReply, CheckpointError, CheckpointFile, HandshakeError, Listener, Pages, RunDir};
use pollux_worker::handover::{Handover, mesh};
use pollux_worker::housekeeping::{BoxedPort, Sleeper, Waker, channel, waker};
use pollux_worker::stats::{PORTS_MAX, WorkerCounters};
use pollux_worker::{Idle, PortEntry, Worker, WorkerParts};

use crate::affinity;
use crate::counter_writer::CounterWriter;
use crate::device::{Device, mtu_max};
use crate::guard_at_exit;
use crate::host_port::{self, HostPort};
use crate::housekeeping::{Housekeeper, Parts, WorkerLink};
use crate::locks::TABLES;
use crate::namespace;
use crate::netlink::mirror::Mirror;
use crate::netlink::{Link, Rtnl, RuleWatch};
use crate::patience::{self, once_free};
use crate::query::{QueryError, QuerySocket};
use crate::sandbox;

pub use error::SetupError;

/// Brings everything up in the calling thread, which becomes the housekeeper.
///
/// The order matters. The bpffs is mounted before the network namespace is entered; sockets are in the map
/// before the program is attached; workers run before control can attach.
pub fn bring_up(config: Config) -> Result<Housekeeper, SetupError> {
    let mut effective = Vec::new();
    cores(&config)?;
    folders(&config)?;
    let Claims { queries, listener, checkpoints } = claim(&config)?;
    let pin_dir = bpffs::mount_own(&config.paths.run_dir)?;
    if let Some(netns) = &config.dataplane.netns {
        namespace::enter(netns)?;
    }
    let mut rtnl = Rtnl::open()?;
    let mut devices = devices(&config)?;
    let host = host_port(&config, &mut rtnl, &mut effective)?;
    let mirror = Mirror::open(TABLES)?;
    let rules = RuleWatch::open(TABLES)?;
    let mut steering = Steering::open(&pin_dir, Capacity::default())?;
    steering.set_local_addrs(&mirror.addresses())?;
    let (mut guard, pairs) = guard_at_exit::close(&config, &mirror, &mut steering)?;
    forget_spis(&mut steering)?;

    let workers = config.dataplane.queues;
    let umem = Umem::new(UmemConfig {
        frames: config.dataplane.frames_per_worker * u32::from(workers),
        frame_len: config.dataplane.frame_len.unwrap_or_else(|| frame_len(&devices, &mirror)),
        huge_pages: config.dataplane.huge_pages,
    })?;
    report_umem(&umem, &mut effective);
    let mut columns: Vec<Vec<BoxedPort>> = Vec::new();
    for device in &mut devices {
        columns.push(bind(device, &mirror, &umem, &mut steering, &config)?);
        report_device(device, &config, umem.info().frame_len, &mut effective);
    }
    if let (Some(host), Some(device)) = (&host, devices.iter_mut().find(|device| device.role == Role::Host)) {
        device.peer = Some(host.kernel.mac);
    }
    let cookies: Vec<u64> = devices.iter().flat_map(|device| &device.cookies).copied().collect();
    guard.set_xsk_cookies(&cookies)?;
    effective.push(guard_at_exit::report(&guard));
    let started =
        start_workers(&config, &umem, &devices, columns, checkpoints.checkpoints(), &mut effective)?;
    let counter_writer = CounterWriter::start(checkpoints.writer()?, config.dataplane.sandbox)
        .map_err(|source| SetupError::CounterWriter { source })?;
    let attach_reply = AttachReply {
        workers,
        spi_index_width: index_width(&config),
        sa_capacity: config.dataplane.sa_capacity,
        fingerprint_key: random()?,
    };
    Ok(Housekeeper::new(Parts {
        instance: u64::from_le_bytes(random()?),
        started,
        config,
        rtnl,
        mirror,
        rules,
        steering,
        guard,
        pairs,
        devices,
        host,
        umem,
        checkpoints,
        counter_writer,
        listener,
        queries,
        attach_reply,
        effective,
    }))
}

/// Of the SAs of an earlier life none is left: what their SPIs would let through belongs to others by now.
fn forget_spis(steering: &mut Steering) -> Result<(), SteerError> {
    for spi in steering.spis()? {
        steering.remove_spi(spi)?;
    }
    Ok(())
}

/// Makes our folders, and the one that control has for itself.
/// Every core of the configuration has to be one that this process may run on.
fn cores(config: &Config) -> Result<(), SetupError> {
    let allowed = affinity::allowed_cores().unwrap_or_default();
    let missing = |core: &&u32| !allowed.is_empty() && !allowed.contains(&CoreId(**core));
    match config.dataplane.cores.iter().find(missing) {
        Some(&core) => {
            let allowed = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(SetupError::Core { core, allowed })
        }
        None => Ok(()),
    }
}

fn folders(config: &Config) -> Result<(), SetupError> {
    let control = config.dataplane.control_uid;
    let run_dir = RunDir::ensure(&config.paths.run_dir, config.run_dir_mode(), None)?;
    run_dir.child(CONTROL_DIR, config.control_dir_mode(), control)?;
    RunDir::ensure(&config.paths.state_dir, 0o700, None)?;
    Ok(())
}

/// What only one data plane can have.
struct Claims {
    queries: QuerySocket,
    listener: Listener,
    checkpoints: CheckpointFile,
}

/// Takes them all, from a predecessor that is dying too.
fn claim(config: &Config) -> Result<Claims, SetupError> {
    let (paths, until) = (&config.paths, Instant::now() + patience::DYING);
    let queries = once_free(
        until,
        |error| matches!(error, QueryError::InUse { .. }),
        || QuerySocket::bind(&paths.dataplane_socket(), config.dataplane.control_uid),
    )?;
    let listener = once_free(
        until,
        |error| matches!(error, HandshakeError::InUse { .. }),
        || Listener::bind(&paths.attach_socket(), config.dataplane.control_uid),
    )?;
    let checkpoints = once_free(
        until,
        |error| matches!(error, CheckpointError::InUse { .. }),
        || CheckpointFile::open(&paths.counter_file()),
    )?;
    Ok(Claims { queries, listener, checkpoints })
}

fn file_error(path: &Path, source: io::Error) -> SetupError {
    SetupError::File { path: path.display().to_string(), source }
}

fn random<const N: usize>() -> Result<[u8; N], SetupError> {
    let path = Path::new("/dev/urandom");
    let mut octets = [0; N];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut octets))
        .map_err(|source| file_error(path, source))?;
    Ok(octets)
}

/// Bits of table index in our SPIs: as few as the table needs.
fn index_width(config: &Config) -> u32 {
    config.dataplane.sa_capacity.next_power_of_two().trailing_zeros().clamp(1, SPI_INDEX_WIDTH_MAX)
}

fn devices(config: &Config) -> Result<Vec<Device>, SetupError> {
    let wan = config.dataplane.wan.iter().map(|name| (name.as_str(), Role::Wan));
    let lan = config.dataplane.lan.iter().map(|name| (name.as_str(), Role::Lan));
    let host = config.dataplane.host_port.then_some((host_port::OUR_END, Role::Host));
    let all: Vec<_> = wan.chain(lan).chain(host).collect();
    if all.len() > PORTS_MAX {
        return Err(SetupError::Interfaces { count: all.len(), max: PORTS_MAX });
    }
    Ok(all.into_iter().zip(0..).map(|((name, role), slot)| Device::new(PortSlot(slot), name, role)).collect())
}

/// Octets of the largest frame that a UMEM has here: a page.
const FRAME_LEN_MAX: u32 = 4_096;

/// Octets of a frame for the widest of these ports. In small frames, the headers of a burst share more sets of L1.
fn frame_len(devices: &[Device], mirror: &Mirror) -> u32 {
    // What is not there yet may turn out to be wide.
    let fits =
        |device: &Device| mirror.link_named(&device.name).is_some_and(|link| link.mtu <= mtu_max(2_048));
    if devices.iter().all(fits) { 2_048 } else { FRAME_LEN_MAX }
}

/// Makes `pollux0`, as wide as the widest port, so that whatever a tunnel brings fits.
fn host_port(
    config: &Config,
    rtnl: &mut Rtnl,
    effective: &mut Vec<Effective>,
) -> Result<Option<HostPort>, SetupError> {
    if !config.dataplane.host_port {
        return Ok(None);
    }
    let links = rtnl.links()?;
    let ports = config.dataplane.wan.iter().chain(&config.dataplane.lan);
    let mtu = ports
        .filter_map(|name| links.iter().find(|link| link.is_named(name)))
        .map(|link| link.mtu)
        .max()
        .unwrap_or(1500);
    let host = HostPort::ensure(rtnl, u32::from(config.dataplane.queues), mtu)?;
    effective.push(Effective {
        what: "host port".to_owned(),
        requested: format!("{}, MTU {mtu}", host_port::NAME),
        effective: if host.remarks.is_empty() {
            format!("{} (ifindex {})", host_port::NAME, host.kernel.index)
        } else {
            format!("{} (ifindex {}), but {}", host_port::NAME, host.kernel.index, host.remarks.join(", "))
        },
    });
    Ok(Some(host))
}

fn bind(
    device: &mut Device,
    mirror: &Mirror,
    umem: &Umem,
    steering: &mut Steering,
    config: &Config,
) -> Result<Vec<BoxedPort>, SetupError> {
    let Some(link) = mirror.link_named(&device.name).cloned() else {
        let place =
            config.dataplane.netns.as_ref().map_or(String::new(), |netns| format!(" in namespace {netns}"));
        return Err(SetupError::NoInterface { name: device.name.clone(), side: device.role, place });
    };
    if !link.ethernet {
        return Err(SetupError::LinkType { name: link.name, side: device.role, link_type: link.link_type });
    }
    check_queues(&link, config.dataplane.queues)?;
    device.bind(link, umem, steering, &config.dataplane)
}

/// Each queue that the NIC spreads over needs a worker, and each worker a queue. A driver without channels has as many as
/// its device was made with, of which it uses what it likes.
fn check_queues(link: &Link, wants: u16) -> Result<(), SetupError> {
    let name = link.name.clone();
    let channels =
        pollux_ebpf::channels(&name).map_err(|source| SetupError::Channels { name: name.clone(), source })?;
    let (active, word) =
        channels.map_or((None, "combined"), |channels| (Some(channels.active), channels.word));
    let has = active.unwrap_or(link.queues);
    if has < u32::from(wants) {
        return Err(SetupError::TooFewQueues { name, has, wants, word });
    }
    match active {
        Some(has) if has > u32::from(wants) => Err(SetupError::TooManyQueues { name, has, wants, word }),
        _ => Ok(()),
    }
}

/// Everything about a worker that only its thread needs.
struct Making {
    ports: Vec<PortEntry>,
    handover: Handover,
    sleeper: Sleeper,
    core: Option<CoreId>,
}

/// The workers as the housekeeper sees them, and its own sleeper.
pub struct Started {
    /// By worker id.
    pub workers: Vec<WorkerLink>,
    /// What wakes the housekeeper.
    pub sleeper: Sleeper,
    /// Counters of all SAs.
    pub sa_counters: Arc<SaCounterTable>,
    /// The cipher kernel's name.
    pub aead: &'static str,
}

fn start_workers(
    config: &Config,
    umem: &Umem,
    devices: &[Device],
    columns: Vec<Vec<BoxedPort>>,
    checkpoints: &'static [pollux_abi::Checkpoint],
    effective: &mut Vec<Effective>,
) -> Result<Started, SetupError> {
    let dataplane = &config.dataplane;
    let choice: EngineChoice = dataplane.aead.parse()?;
    let aead = pollux_aead::Engine::select(choice)?;
    effective.push(Effective {
        what: "aead".to_owned(),
        requested: dataplane.aead.clone(),
        effective: aead.name().to_owned(),
    });
    effective.push(Effective {
        what: "cpu features".to_owned(),
        requested: String::new(),
        effective: cpu_features(),
    });
    let allowed = affinity::allowed_cores().unwrap_or_default();
    let cores = affinity::choose(dataplane.queues, &dataplane.cores, &allowed);
    let sa_counters = Arc::new(SaCounterTable::new(dataplane.sa_capacity));
    let (house_sleeper, house_waker) = waker()?;
    let (sleepers, wakers): (Vec<Sleeper>, Vec<Waker>) =
        (0..dataplane.queues).map(|_| waker()).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let meshes = mesh(&wakers, dataplane.frames_per_worker)?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let mut links = Vec::new();
    let makings = sleepers.into_iter().zip(meshes).zip(wakers);
    for (((sleeper, handover), waker), id) in makings.zip(0u16..) {
        let ports = devices.iter().zip(&mut columns).map(|(device, column)| {
            PortEntry::new(column.next(), packet_role(device.role), device.facts(umem.info().frame_len))
        });
        let core = cores.get(usize::from(id)).copied();
        let making = Making { ports: ports.collect(), handover, sleeper, core };
        let engine_counters = Arc::new(EngineCounters::default());
        let counters = Arc::new(WorkerCounters::default());
        let (housekeeper, end) = channel(house_waker.try_clone()?);
        let engine = Engine::new(EngineConfig {
            worker: WorkerId(id),
            workers: dataplane.queues,
            spi_index_width: index_width(config),
            sa_capacity: dataplane.sa_capacity,
            window_packets_total: WINDOW_PACKETS_TOTAL,
            aead,
            sa_counters: Arc::clone(&sa_counters),
            counters: Arc::clone(&engine_counters),
            checkpoints,
        })?;
        let worker = Worker::new(WorkerParts {
            engine,
            pool: umem.pool(dataplane.frames_per_worker)?,
            ports: making.ports,
            handover: making.handover,
            housekeeper: end,
            sleeper: making.sleeper,
            counters: Arc::clone(&counters),
            stale_ns: u64::try_from(dataplane.stale.as_nanos()).unwrap_or(u64::MAX),
            sa_capacity: dataplane.sa_capacity,
        });
        report_core(id, making.core, &dataplane.cores, effective);
        let thread = spawn(worker, id, making.core, config)?;
        links.push(WorkerLink::new(housekeeper, waker, counters, engine_counters, making.core, thread));
    }
    Ok(Started { workers: links, sleeper: house_sleeper, sa_counters, aead: aead.name() })
}

/// Packets that all replay windows of a worker span together: 10,000 SAs with a window of 1,024, and as
/// much again; two megabits of memory each.
const WINDOW_PACKETS_TOTAL: u64 = 16 << 20;

/// Starts a worker; returns once it is confined, so that it never sees a packet where it cannot be.
fn spawn(
    mut worker: Worker,
    id: u16,
    core: Option<CoreId>,
    config: &Config,
) -> Result<std::thread::JoinHandle<()>, SetupError> {
    let (idle, sandboxed) = (idle(config), config.dataplane.sandbox);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let body = move || {
        if let Some(core) = core
            && let Err(error) = affinity::pin(core)
        {
            tracing::warn!(worker = id, core = core.0, %error, "worker-not-pinned");
        }
        let confined = if sandboxed { sandbox::confine_worker() } else { Ok(()) };
        let go_on = confined.is_ok();
        // The starter waits for it.
        let _ = ready.send(confined);
        // Its end of the channel goes before the work begins.
        drop(ready);
        if go_on {
            worker.run(idle);
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(body)
        .map_err(|source| SetupError::Thread { worker: id, source })?;
    match is_ready.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(reason)) => Err(SetupError::Sandbox { worker: id, reason }),
        Err(_) => Err(SetupError::Sandbox { worker: id, reason: "its thread ended".to_owned() }),
    }
}

fn idle(config: &Config) -> Idle {
    match config.dataplane.idle {
        IdleMode::Spin => Idle::Spin,
        IdleMode::Adaptive => {
            Idle::Adaptive { spin_ns: u64::try_from(config.dataplane.spin.as_nanos()).unwrap_or(u64::MAX) }
        }
    }
}

/// The two crates' words for the same thing.
pub fn packet_role(role: Role) -> pollux_packet::Role {
    match role {
        Role::Wan => pollux_packet::Role::Wan,
        Role::Lan => pollux_packet::Role::Lan,
        Role::Host => pollux_packet::Role::Host,
    }
}

fn report_umem(umem: &Umem, effective: &mut Vec<Effective>) {
    let info = umem.info();
    let requested = if info.pages.requested == Pages::Huge2M { "2 MiB" } else { "4 KiB" }.to_owned();
    effective.push(Effective { what: "huge pages".to_owned(), requested, effective: info.to_string() });
}

fn report_device(device: &Device, config: &Config, frame_len: u32, effective: &mut Vec<Effective>) {
    let room = mtu_max(frame_len);
    if let Some(link) = device.link.as_ref().filter(|link| link.mtu > room) {
        effective.push(Effective {
            what: format!("mtu {}", device.name),
            requested: link.mtu.to_string(),
            effective: format!(
                "{room}: frames of {frame_len} octets have no room for more; what is longer is dropped by the kernel \
                 (xsk_rx_dropped); set the MTU of {} and of its hosts to {}",
                device.name,
                mtu_max(FRAME_LEN_MAX)
            ),
        });
    }
    if let Some(attached) = &device.attached {
        let reason = attached.reason.as_ref().map_or(String::new(), |reason| format!(" because {reason}"));
        let again = if attached.reused_link { ", replaced without a gap" } else { "" };
        effective.push(Effective {
            what: format!("xdp {}", device.name),
            requested: format!("{:?}", config.dataplane.xdp).to_lowercase(),
            effective: format!("{}{reason}{again}", attached.mode),
        });
    }
    for socket in &device.sockets {
        let requested = socket.copy_mode.as_ref().map_or(String::new(), |mode| mode.requested.to_string());
        effective.push(Effective {
            what: format!("socket {} queue {}", device.name, socket.queue),
            requested,
            effective: socket.to_string(),
        });
    }
}

fn report_core(id: u16, core: Option<CoreId>, configured: &[u32], effective: &mut Vec<Effective>) {
    let requested = configured.get(usize::from(id)).map_or_else(|| "any".to_owned(), u32::to_string);
    let is = core.map_or_else(
        || "not pinned".to_owned(),
        |core| {
            let node =
                affinity::numa_node(core).map_or_else(|| "unknown".to_owned(), |node| node.to_string());
            format!("core {core}, NUMA node {node}")
        },
    );
    effective.push(Effective { what: format!("core of worker {id}"), requested, effective: is });
}

/// What of the CPU concerns us, as `/proc/cpuinfo` spells it.
fn cpu_features() -> String {
    let wanted = [
        "aes",
        "pclmulqdq",
        "ssse3",
        "sse4_1",
        "avx",
        "avx2",
        "bmi2",
        "vaes",
        "vpclmulqdq",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512ifma",
        "avx512_vbmi2",
    ];
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has: Vec<&str> = flags.split_whitespace().filter(|flag| wanted.contains(flag)).collect();
    if has.is_empty() { "none of ours".to_owned() } else { has.join(" ") }
}
