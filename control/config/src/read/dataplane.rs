//! `[dataplane]` and `[control]`.

use std::time::Duration;

use toml::de::DeValue;

use crate::document::Section;
use crate::model::{Control, Dataplane, IdleMode, XdpMode, ZeroCopy};
use crate::values::{self, Wrong, boolean, duration_in, list, number, power_of_two, some, word};

/// As many as the shared memory has rings for.
const WORKERS_MAX: u16 = pollux_abi::layout::WORKERS_MAX;

pub(super) fn netns(s: &Section<'_, '_>) -> Option<String> {
    s.optional("netns", values::text)
}

pub(super) fn dataplane(root: &Section<'_, '_>) -> Option<Dataplane> {
    let Some(section) = root.section("dataplane") else {
        root.report().add(
            1,
            "dataplane",
            "is missing",
            "add [dataplane] with wan = \"INTERFACE\" and lan = \"INTERFACE\"",
        );
        return None;
    };
    let s = &section;
    let wan = s.required("wan", "write wan = \"eth0\": the interface towards the peers", some(interface));
    let lan = s.required("lan", "write lan = \"eth1\": the interface towards the media", some(interface));
    let milliseconds = |from, to| duration_in(Duration::from_millis(from)..=Duration::from_millis(to));
    let dataplane = Dataplane {
        netns: netns(s),
        wan: Vec::new(),
        lan: Vec::new(),
        queues: s.or("queues", 1, number(1..=WORKERS_MAX)),
        cores: s.or("cores", Vec::new(), list(number(0..=4095))),
        idle: s.or(
            "idle",
            IdleMode::Spin,
            word(&[("spin", IdleMode::Spin), ("adaptive", IdleMode::Adaptive)]),
        ),
        spin: s.or("spin", Duration::from_millis(1), milliseconds(0, 10_000)),
        xdp: s.or(
            "xdp",
            XdpMode::Auto,
            word(&[("auto", XdpMode::Auto), ("driver", XdpMode::Driver), ("generic", XdpMode::Generic)]),
        ),
        zero_copy: s.or(
            "zero_copy",
            ZeroCopy::Auto,
            word(&[("auto", ZeroCopy::Auto), ("copy", ZeroCopy::Copy), ("require", ZeroCopy::Require)]),
        ),
        busy_poll: s.or("busy_poll", false, boolean),
        aead: s.or("aead", "auto".to_owned(), values::name),
        huge_pages: s.or("huge_pages", true, boolean),
        frames_per_worker: s.or("frames_per_worker", 16_384, power_of_two(1_024..=1 << 20)),
        frame_len: s.optional("frame_len", power_of_two(2_048..=4_096)),
        rx_ring: s.or("rx_ring", 2_048, power_of_two(64..=1 << 16)),
        tx_ring: s.or("tx_ring", 2_048, power_of_two(64..=1 << 16)),
        fill_ring: s.or("fill_ring", 2_048, power_of_two(64..=1 << 16)),
        completion_ring: s.or("completion_ring", 2_048, power_of_two(64..=1 << 16)),
        sa_capacity: s.or(
            "sa_capacity",
            16_384,
            power_of_two(64..=1 << pollux_abi::layout::SPI_INDEX_WIDTH_MAX),
        ),
        stale: s.or("stale", Duration::from_millis(500), milliseconds(10, 60_000)),
        control_uid: s.optional("control_uid", number(0..=u32::MAX)),
        host_port: s.or("host_port", true, boolean),
        sandbox: s.or("sandbox", true, boolean),
        log: s.or("log", "info".to_owned(), values::log_filter),
    };
    across(s, &dataplane, wan.as_deref().unwrap_or_default(), lan.as_deref().unwrap_or_default());
    section.finish();
    Some(Dataplane { wan: wan?, lan: lan?, ..dataplane })
}

/// Mistakes that need more than one key to see.
fn across(s: &Section<'_, '_>, dataplane: &Dataplane, wan: &[String], lan: &[String]) {
    for name in wan.iter().filter(|name| lan.contains(name)) {
        s.wrong("lan", format!("`{name}` is also a wan interface"), "give each side interfaces of its own");
    }
    for (key, names) in [("wan", wan), ("lan", lan)] {
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                s.wrong(key, format!("`{name}` is named twice"), "name it once");
            }
        }
    }
    let cores = &dataplane.cores;
    if !cores.is_empty() && cores.len() != usize::from(dataplane.queues) {
        s.wrong(
            "cores",
            format!("{} cores for {} workers", cores.len(), dataplane.queues),
            "name one core for each queue, or leave the key out",
        );
    }
    if let Some(core) = (1..cores.len()).find(|&at| cores[..at].contains(&cores[at])).map(|at| cores[at]) {
        s.wrong("cores", format!("core {core} is named twice"), "give each worker a core of its own");
    }
    let ports = u32::try_from(wan.len() + lan.len())
        .unwrap_or(u32::MAX)
        .saturating_add(u32::from(dataplane.host_port));
    let needed = dataplane.fill_ring.max(dataplane.rx_ring).saturating_mul(ports);
    if dataplane.frames_per_worker < needed.saturating_add(1_024) {
        s.wrong(
            "frames_per_worker",
            format!(
                "{} frames cannot fill the rings of {ports} ports and leave 1024 to work with",
                dataplane.frames_per_worker
            ),
            format!("write at least {}, or smaller rings", (needed + 1_024).next_power_of_two()),
        );
    }
}

pub(super) fn control(root: &Section<'_, '_>) -> Control {
    let seconds = |from, to| duration_in(Duration::from_secs(from)..=Duration::from_secs(to));
    let milliseconds = |from, to| duration_in(Duration::from_millis(from)..=Duration::from_millis(to));
    let mut control = Control {
        overlap: Duration::from_secs(10),
        ack_deadline: Duration::from_millis(500),
        ike_port: 500,
        natt_port: 4500,
        keepalive: Duration::from_secs(20),
        retransmit_timeout: Duration::from_secs(1),
        retransmit_tries: 6,
        cookie_threshold: 64,
        half_open_per_source: 512,
        half_open_max: 4_096,
        ike_sa_max: 65_536,
        key_log: None,
        sandbox: true,
        log: "info".to_owned(),
    };
    let Some(section) = root.section("control") else { return control };
    let s = &section;
    control.overlap = s.or("overlap", control.overlap, seconds(0, 3_600));
    control.ack_deadline = s.or("ack_deadline", control.ack_deadline, milliseconds(10, 60_000));
    control.ike_port = s.or("ike_port", control.ike_port, fixed_port(control.ike_port));
    control.natt_port = s.or("natt_port", control.natt_port, fixed_port(control.natt_port));
    control.keepalive = s.or("keepalive", control.keepalive, seconds(1, 3_600));
    control.retransmit_timeout =
        s.or("retransmit_timeout", control.retransmit_timeout, milliseconds(50, 60_000));
    control.retransmit_tries = s.or("retransmit_tries", control.retransmit_tries, number(1..=20));
    control.cookie_threshold = s.or("cookie_threshold", control.cookie_threshold, number(0..=1 << 20));
    control.half_open_per_source =
        s.or("half_open_per_source", control.half_open_per_source, number(1..=1 << 20));
    control.half_open_max = s.or("half_open_max", control.half_open_max, number(1..=1 << 20));
    control.ike_sa_max = s.or("ike_sa_max", control.ike_sa_max, number(1..=1 << 20));
    control.key_log = s.optional("key_log", values::absolute);
    control.sandbox = s.or("sandbox", control.sandbox, boolean);
    control.log = s.or("log", control.log, values::log_filter);
    section.finish();
    control
}

/// The one port that XDP program, packet parser and locks know IKE and ESP in UDP by.
fn fixed_port(only: u16) -> impl Fn(&DeValue<'_>) -> Result<u16, Wrong> {
    move |value| match number(1..=u16::MAX)(value)? {
        port if port == only => Ok(port),
        port => Err(Wrong::new(
            format!("{port} is not served: XDP program, packet parser and locks know port {only} alone"),
            format!("leave the key out; a NAT in front of the gateway may map another port to {only}"),
        )),
    }
}

/// A network interface's name, or another name of it (ALTIFNAMSIZ is 128 with its end mark).
fn interface(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = values::text(value)?;
    if name.len() < 128 && !name.contains(['/', ' ', ':', ',']) {
        Ok(name)
    } else {
        Err(Wrong::new(
            format!("`{name}` is no interface name"),
            "write one of the names that `ip link` shows",
        ))
    }
}
