//! Manual SAs: what the configuration wants, held against what the data plane has.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use pollux_abi::command::{CHECKPOINT_WANTED, Direction, SaSpec};
use pollux_abi::{KeyMaterial, SaId, SaIndex, Selectors, WorkerId};
use pollux_config::api::{SaRow, fingerprint};
use pollux_config::{Config, ManualSa, Secrets};
use pollux_ike::crypto::{Rng, draw};
use pollux_shm::AttachReply;

use crate::table::{SaEntry, State, Table};

/// One manual SA as it shall be.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Its name in the file.
    pub(crate) name: String,
    /// What the data plane is to be told; id and index are not given yet.
    pub(crate) spec: SaSpec,
    /// Its key.
    pub(crate) key: Box<KeyMaterial>,
    /// What would be read back.
    row: SaRow,
}

/// What is to be done for the table to be as wanted.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Names and ids of those that stay as they are.
    pub(crate) kept: Vec<(String, SaId)>,
    /// Get other keys, addresses or marks, and keep counters and windows.
    pub(crate) replaced: Vec<(Wanted, SaId)>,
    /// Are new.
    pub(crate) added: Vec<Wanted>,
    /// Are new in the place of one that has to go first, as both have one SPI.
    pub(crate) recreated: Vec<(Wanted, SaId)>,
    /// Are wanted no more.
    pub(crate) removed: Vec<SaId>,
    /// Are wanted, and their keys cannot be had.
    pub(crate) without_key: Vec<String>,
}

/// Every manual SA of a configuration.
pub(crate) fn wanted(
    config: &Config,
    secrets: &Secrets,
    attach_reply: &AttachReply,
    rng: &mut dyn Rng,
) -> Vec<Wanted> {
    let mut places = 0_u16;
    config
        .sas
        .iter()
        .filter_map(|sa| {
            let key = secrets.key(&sa.key)?;
            // Spread over the workers, the two SAs of a reqid on the same one.
            let spread =
                u16::try_from(sa.reqid.0 % u32::from(attach_reply.workers.max(1))).unwrap_or_default();
            let owner = WorkerId(sa.worker.unwrap_or(spread).min(attach_reply.workers.saturating_sub(1)));
            places = places.wrapping_add(1);
            let spec = spec(sa, owner, rng)?;
            let print = fingerprint(&attach_reply.fingerprint_key, sa.suite, &key);
            let row = SaEntry::new(&spec, print, Some(sa.name.clone())).row;
            Some(Wanted { name: sa.name.clone(), spec, key, row })
        })
        .collect()
}

fn spec(sa: &ManualSa, owner: WorkerId, rng: &mut dyn Rng) -> Option<SaSpec> {
    Some(SaSpec {
        id: SaId(1),
        direction: sa.direction,
        index: SaIndex(0),
        spi: sa.spi,
        suite: sa.suite,
        esn: sa.esn,
        window_packets: sa.window_packets,
        local: sa.local,
        remote: sa.remote,
        encap: sa.encap,
        reqid: sa.reqid,
        owner,
        dscp: sa.dscp,
        ecn: sa.ecn,
        df: sa.df,
        lifetimes: sa.lifetimes,
        seq_start: sa.seq,
        // A point of its own for each life, so that no IV returns though the key does.
        iv_start: u64::from_le_bytes(draw(rng)),
        checkpoint: Some(CHECKPOINT_WANTED),
        local_ts: Selectors::new(&sa.local_ts)?,
        remote_ts: Selectors::new(&sa.remote_ts)?,
    })
}

/// By what an SA is known again: its SPI, and outbound the peer who gave it.
type Identity = (bool, u32, Option<IpAddr>);

fn identity(row: &SaRow) -> Identity {
    let inbound = row.direction == "in";
    (inbound, row.spi, if inbound { None } else { row.remote })
}

/// The identity that an SA of the file has in the table.
fn identity_of(sa: &ManualSa) -> Identity {
    let inbound = sa.direction == Direction::Inbound;
    (inbound, sa.spi.get(), if inbound { None } else { Some(sa.remote) })
}

/// Compares what is wanted with the manual SAs of the table. SAs of `config` whose key cannot be had at the moment are
/// not among `wanted`: they stay as they are, or are missing.
pub(crate) fn plan(wanted: Vec<Wanted>, config: &Config, table: &Table) -> Plan {
    let mut present: HashMap<Identity, (SaId, &SaRow)> = table
        .iter()
        .filter(|(_, entry)| entry.is_manual() && entry.state != State::Removing)
        .map(|(&id, entry)| (identity(&entry.row), (id, &entry.row)))
        .collect();
    let mut plan = Plan::default();
    let named: HashSet<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
    for sa in config.sas.iter().filter(|sa| !named.contains(sa.name.as_str())) {
        match present.remove(&identity_of(sa)) {
            Some((id, _)) => plan.kept.push((sa.name.clone(), id)),
            None => plan.without_key.push(sa.name.clone()),
        }
    }
    for mut wanted in wanted {
        let Some((id, row)) = present.remove(&identity(&wanted.row)) else {
            plan.added.push(wanted);
            continue;
        };
        wanted.spec.id = id;
        wanted.spec.index = SaIndex(row.index);
        wanted.spec.owner = WorkerId(row.worker);
        if !same_life(&wanted.row, row) {
            plan.recreated.push((wanted, id));
        } else if same_rest(&wanted.row, row) {
            plan.kept.push((wanted.name, id));
        } else {
            plan.replaced.push((wanted, id));
        }
    }
    let lingers = |id: &SaId| table.get(id).is_some_and(|entry| entry.state == State::Lingering);
    plan.removed = present.into_values().map(|(id, _)| id).filter(|id| !lingers(id)).collect();
    plan.removed.sort_unstable();
    plan
}

/// What an SA cannot change while it lives.
fn same_life(wanted: &SaRow, row: &SaRow) -> bool {
    let window = wanted.direction == "out" || wanted.window_packets == row.window_packets;
    window && wanted.suite == row.suite && wanted.esn == row.esn && wanted.reqid == row.reqid
}

/// What it can.
fn same_rest(wanted: &SaRow, row: &SaRow) -> bool {
    let limits = |row: &SaRow| {
        (row.soft_bytes, row.hard_bytes, row.soft_packets, row.hard_packets, row.soft_age_s, row.hard_age_s)
    };
    let marks = |row: &SaRow| (row.dscp.clone(), row.ecn.clone(), row.df.clone());
    wanted.fingerprint == row.fingerprint
        && (wanted.local, wanted.remote, wanted.encap) == (row.local, row.remote, row.encap)
        && limits(wanted) == limits(row)
        && marks(wanted) == marks(row)
        && wanted.local_ts == row.local_ts
        && wanted.remote_ts == row.remote_ts
}

/// The direction of a plan's entry, in words.
pub(crate) fn direction_of(spec: &SaSpec) -> &'static str {
    match spec.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}
