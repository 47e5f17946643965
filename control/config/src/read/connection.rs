//! `[[connection]]` and `[connection.children.NAME]`.

use std::time::Duration;

use pollux_abi::command::Lifetimes;
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::layout::SELECTORS_MAX;
use toml::de::DeValue;

use super::sa::{DF, ECN, WINDOW, WINDOW_DEFAULT, on_both_sides, selector_lists};
use crate::check::fixed;
use crate::document::Section;
use crate::model::{
    Auth, AuthMethod, Child, ChildMode, ChildSelector, Connection, DpdAction, StartAction, UniquePolicy,
};
use crate::proposal;
use crate::values::{self, Wrong, boolean, count, duration, list, number, some, word};

const HOUR: Duration = Duration::from_hours(1);
const START: &[(&str, StartAction)] =
    &[("none", StartAction::None), ("trap", StartAction::Trap), ("start", StartAction::Start)];

pub(super) fn connection(section: Section<'_, '_>) -> Option<Connection> {
    let s = &section;
    let name = s.required("name", "write name = \"office\"", values::name);
    s.or("version", 2, version);
    let rekey_time = s.or("rekey_time", 4 * HOUR, duration);
    let connection = Connection {
        name: String::new(),
        line: s.line(),
        local_addrs: s.or("local_addrs", Vec::new(), addresses(values::address)),
        remote_addrs: s.or("remote_addrs", Vec::new(), addresses(values::prefix)),
        remote_port: s.or("remote_port", 500, number(1..=u16::MAX)),
        local: auth(s, "local"),
        remote: auth(s, "remote"),
        psk: s.optional("psk", values::name),
        proposals: s.or("proposals", Vec::new(), list(proposal::ike)),
        rekey_time,
        over_time: s.or("over_time", rekey_time / 10, duration),
        rand_time: s.or("rand_time", rekey_time / 10, duration),
        dpd_delay: s.or("dpd_delay", Duration::ZERO, duration),
        encap: s.or("encap", false, boolean),
        unique: s.or(
            "unique",
            UniquePolicy::No,
            word(&[
                ("no", UniquePolicy::No),
                ("never", UniquePolicy::Never),
                ("replace", UniquePolicy::Replace),
            ]),
        ),
        keyingtries: s.or("keyingtries", 1, number(0..=1_000)),
        children: children(s),
    };
    by_itself(s, &connection);
    section.finish();
    Some(Connection { name: name?, ..connection })
}

fn by_itself(s: &Section<'_, '_>, connection: &Connection) {
    if !s.has("children") {
        s.wrong("children", "is missing", "add [connection.children.NAME] with local_ts and remote_ts");
    }
    let reachable = connection.remote_addrs.iter().any(|net| net.prefix_len() == net.max_prefix_len());
    for child in &connection.children {
        if !reachable && child.start_action != StartAction::None {
            s.wrong(
                "remote_addrs",
                format!("names no single address, so child `{}` can't be started from here", child.name),
                "write the peer's address, or start_action = \"none\" and wait for the peer",
            );
        }
    }
    let mixed = connection.local_addrs.iter().any(|ours| {
        !connection.remote_addrs.is_empty()
            && !connection.remote_addrs.iter().any(|net| net.addr().is_ipv4() == ours.is_ipv4())
    });
    if mixed {
        s.wrong("local_addrs", "is of another IP version than remote_addrs", "use one IP version for both");
    }
    if connection.rand_time > connection.rekey_time {
        s.wrong("rand_time", "is longer than rekey_time", "leave it out: a tenth of rekey_time");
    }
}

/// `[connection.local]` or `[connection.remote]`.
fn auth(parent: &Section<'_, '_>, key: &'static str) -> Auth {
    let mut auth = Auth { method: AuthMethod::Psk, id: None };
    let Some(section) = parent.section(key) else { return auth };
    auth.method = section.or("auth", AuthMethod::Psk, method);
    let identity = if key == "local" { values::identity::own } else { values::identity::pattern };
    auth.id = section.optional("id", identity);
    section.finish();
    auth
}

fn version(value: &DeValue<'_>) -> Result<u8, Wrong> {
    match number(0..=2u8)(value) {
        Ok(2) => Ok(2),
        _ => Err(Wrong::new("Pollux speaks IKEv2 alone", "write version = 2, or leave the key out")),
    }
}

fn method(value: &DeValue<'_>) -> Result<AuthMethod, Wrong> {
    word(&[("psk", AuthMethod::Psk)])(value)
}

/// A list that may also be `%any`: empty then.
fn addresses<T>(
    parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
) -> impl Fn(&DeValue<'_>) -> Result<Vec<T>, Wrong> {
    let parse = list(parse);
    move |value| {
        let any = |value: &DeValue<'_>| value.as_str() == Some("%any");
        if any(value) || value.as_array().is_some_and(|array| array.iter().all(|item| any(item.get_ref()))) {
            return Ok(Vec::new());
        }
        parse(value)
    }
}

fn children(parent: &Section<'_, '_>) -> Vec<Child> {
    let Some(section) = parent.section("children") else { return Vec::new() };
    section.named_sections().into_iter().map(|(name, section)| child(name, section)).collect()
}

fn child(name: String, section: Section<'_, '_>) -> Child {
    let s = &section;
    let local_ts = s.or("local_ts", vec![ChildSelector::Dynamic], some(child_selector));
    let remote_ts = s.or("remote_ts", vec![ChildSelector::Dynamic], some(child_selector));
    selector_lists(s, &fixed(&local_ts), &fixed(&remote_ts), SELECTORS_MAX);
    // A peer may narrow it: a hub offers one prefix to every spoke.
    if let Some((reason, _)) = on_both_sides(&fixed(&local_ts), &fixed(&remote_ts)) {
        s.warn("remote_ts", reason, "write what is behind the peer, unless the peer is to narrow it");
    }
    let rekey_time = s.or("rekey_time", HOUR, duration);
    let life_time = s.or("life_time", rekey_time + rekey_time / 10, duration);
    let soft_bytes = s.or("rekey_bytes", 0, count);
    let soft_packets = s.or("rekey_packets", 0, count);
    let child = Child {
        name,
        line: s.line(),
        local_ts,
        remote_ts,
        esp_proposals: s.or("esp_proposals", Vec::new(), list(proposal::esp)),
        reqid: s.optional("reqid", values::reqid),
        start_action: s.or("start_action", StartAction::None, word(START)),
        close_action: s.or("close_action", StartAction::None, word(START)),
        dpd_action: s.or(
            "dpd_action",
            DpdAction::Clear,
            word(&[
                ("clear", DpdAction::Clear),
                ("none", DpdAction::Clear),
                ("trap", DpdAction::Trap),
                ("restart", DpdAction::Restart),
                ("start", DpdAction::Restart),
            ]),
        ),
        mode: s.or("mode", ChildMode::Tunnel, word(&[("tunnel", ChildMode::Tunnel)])),
        rekey_time,
        life_time,
        rand_time: s.or("rand_time", life_time.saturating_sub(rekey_time), duration),
        lifetimes: Lifetimes {
            soft_bytes,
            hard_bytes: s.or("life_bytes", soft_bytes + soft_bytes / 10, count),
            soft_packets,
            hard_packets: s.or("life_packets", soft_packets + soft_packets / 10, count),
            ..Lifetimes::default()
        },
        window_packets: s.or("replay_window", WINDOW_DEFAULT, number(WINDOW)),
        dscp: dscp(s),
        ecn: s.or("copy_ecn", EcnMode::Normal, word(ECN)),
        df: s.or("copy_df", DfMark::Copy, word(DF)),
    };
    if child.rekey_time.is_zero() != child.life_time.is_zero() && child.life_time <= child.rekey_time {
        s.wrong("life_time", "is not above rekey_time", "leave it out: a tenth more than rekey_time");
    } else if !child.life_time.is_zero() && child.life_time <= child.rekey_time {
        s.wrong("life_time", "is not above rekey_time", "leave room for the rekey, or leave the key out");
    }
    for (key, soft, hard) in [
        ("life_bytes", soft_bytes, child.lifetimes.hard_bytes),
        ("life_packets", soft_packets, child.lifetimes.hard_packets),
    ] {
        if hard != 0 && soft >= hard {
            s.wrong(key, format!("{hard} is not above the soft limit {soft}"), "leave room for the rekey");
        }
    }
    section.finish();
    child
}

/// `copy_dscp = "out" | "yes"` as in swanctl, or `dscp = CLASS` for a fixed mark.
fn dscp(s: &Section<'_, '_>) -> DscpMark {
    let fixed = s.optional("dscp", values::dscp);
    let copied = s.optional("copy_dscp", word(&[("out", true), ("yes", true), ("no", false)]));
    match (fixed, copied) {
        (Some(DscpMark::Fixed(_)), Some(true)) => {
            s.wrong("copy_dscp", "contradicts dscp", "keep one of the two");
            DscpMark::Copy
        }
        (Some(mark), _) => mark,
        (None, Some(false)) => DscpMark::Fixed(pollux_abi::Dscp::BE),
        (None, _) => DscpMark::Copy,
    }
}

fn child_selector(value: &DeValue<'_>) -> Result<ChildSelector, Wrong> {
    if value.as_str() == Some("dynamic") {
        return Ok(ChildSelector::Dynamic);
    }
    values::selector(value).map(ChildSelector::Fixed)
}
