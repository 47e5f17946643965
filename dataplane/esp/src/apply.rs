//! Commands: SAs are installed, replaced, routed and removed between bursts.

use pollux_abi::command::{Direction, SaRoute, SaSpec};
use pollux_abi::{Checkpoint, Command, CommandError, EspSuite, KeyMaterial, SaCounters, SaId, SaIndex};
use pollux_aead::{Key, Suite};
use pollux_packet::{Flow, IpVersion, esp, flow};

use crate::engine::Engine;
use crate::mtu;
use crate::replay::{Window, WindowArena};
use crate::sa::{InboundSa, Limits, OutboundSa, OuterTemplate, SaRecord, Slot, flag, place};

/// Carries out one command.
pub(crate) fn apply(engine: &mut Engine, command: Command) -> Result<u32, CommandError> {
    match command {
        Command::SaAdd(spec, keys) => add(engine, &spec, &keys),
        Command::SaReplace(spec, keys) => replace(engine, &spec, keys.as_ref()),
        Command::SaRoute(route) => set_route(engine, &route),
        Command::SaDelete(id) => delete(engine, id),
        Command::Barrier => Ok(0),
        Command::SaQuery(_) | Command::PolicyBegin | Command::PolicyAdd(_) | Command::PolicyCommit => {
            Err(CommandError::Kind)
        }
    }
}

fn add(engine: &mut Engine, spec: &SaSpec, keys: &KeyMaterial) -> Result<u32, CommandError> {
    check_free(engine, spec.id, spec.direction, spec.index, spec.spi.get())?;
    check_spec(engine, spec)?;
    let key = expand(engine, spec, keys)?;
    let at = place(spec.index);
    let mut record = SaRecord::new(spec.id, spec.spi, spec.reqid, spec.owner);
    match spec.direction {
        Direction::Inbound => {
            let order = WindowArena::order_for(spec.window_packets);
            let start = engine.windows.take(order).ok_or(CommandError::Full)?;
            record.window_order = Some(order);
            let seen = engine.checkpoint(spec).map_or(0, Checkpoint::authenticated);
            let words = engine.windows.words(start, 1 << order);
            let window = Window::new(start, words, spec.window_packets, spec.seq_start.max(seen));
            engine.sas.inbound.hot[at] = InboundSa { window, ..inbound(spec) };
            engine.sas.inbound.keys[at] = Some(key);
            engine.sas.inbound.selectors.set(at, &spec.local_ts, &spec.remote_ts);
        }
        Direction::Outbound => {
            let start = engine.checkpoint(spec).map_or(0, Checkpoint::start);
            let mut sa = outbound(spec, mtu::DEFAULT);
            sa.next_seq = spec.seq_start.max(start).max(1);
            // Negotiated keys: the IV is the sequence number. Manual keys: it counts from where control drew.
            sa.next_iv = spec.iv_start;
            sa.reserved = sa.next_seq;
            if sa.next_seq > sa.last_seq() {
                sa.flags |= flag::EXHAUSTED;
            }
            engine.sas.outbound.hot[at] = sa;
            engine.sas.outbound.keys[at] = Some(key);
            engine.sas.outbound.selectors.set(at, &spec.local_ts, &spec.remote_ts);
        }
    }
    if let Some(counters) = engine.sa_counters.row(spec.direction, spec.index) {
        reset(counters);
    }
    let slot = Slot { spi: spec.spi.get(), owner: spec.owner, owned: true };
    engine.sas.enter(spec.direction, spec.index, slot, record);
    engine.refresh_bundle(spec.direction, spec.reqid);
    Ok(spec.checkpoint.unwrap_or(0))
}

fn replace(engine: &mut Engine, spec: &SaSpec, keys: Option<&KeyMaterial>) -> Result<u32, CommandError> {
    let (direction, index) = engine.sas.find_id(spec.id).ok_or(CommandError::Unknown)?;
    if (direction, index) != (spec.direction, spec.index) {
        return Err(CommandError::Index);
    }
    check_spec(engine, spec)?;
    let at = place(index);
    if keys.is_none() {
        has_keys_for(engine, spec, at)?;
    }
    let key = keys.map(|keys| expand(engine, spec, keys)).transpose()?;
    let checkpoint = engine.checkpoint(spec);
    match direction {
        Direction::Inbound => {
            let (record, sa) = engine.sas.inbound.owned_mut(index).ok_or(CommandError::Unknown)?;
            same_sa(record, spec, sa.esn)?;
            let (old, order) = (sa.window, record.window_order);
            let has_other_keys = checkpoint_of(spec) != sa.checkpoint;
            let mut window = resized(&mut engine.windows, old, order, spec.window_packets)?;
            // Other keys have another slot, and begin another window: no packet under the old ones can be
            // authentic, and the peer counts from 1 again. What an earlier life authenticated is a replay now.
            let seen = checkpoint.map_or(0, Checkpoint::authenticated);
            if has_other_keys || seen > window.top() {
                let (start, count) = window.place();
                let seen = if has_other_keys { seen.max(spec.seq_start) } else { seen };
                window = Window::new(start, engine.windows.words(start, count), spec.window_packets, seen);
            }
            let flags = sa.flags & flag::FIRST_TOLD;
            *sa = InboundSa { window, flags, ..inbound(spec) };
            record.window_order = Some(WindowArena::order_for(spec.window_packets));
            if key.is_some() {
                engine.sas.inbound.keys[at] = key;
            }
            engine.sas.inbound.selectors.set(at, &spec.local_ts, &spec.remote_ts);
        }
        Direction::Outbound => {
            let (record, sa) = engine.sas.outbound.owned_mut(index).ok_or(CommandError::Unknown)?;
            same_sa(record, spec, sa.esn)?;
            let old = std::mem::replace(sa, outbound(spec, sa.mtu));
            // IVs go on, whatever the keys: no pair of key and IV can come back. Other keys have another slot of
            // the counter file, and numbers of their own: the peer begins a new window (with ESN it could not
            // guess the upper half of ours). The slot may remember an earlier life of these keys.
            sa.next_seq = old.next_seq;
            sa.next_iv = old.next_iv;
            sa.reserved = old.reserved;
            if sa.checkpoint != old.checkpoint {
                sa.next_seq = spec.seq_start.max(checkpoint.map_or(0, Checkpoint::start)).max(1);
                sa.reserved = sa.next_seq;
            }
            sa.flags = if sa.next_seq > sa.last_seq() { flag::EXHAUSTED } else { 0 };
            if key.is_some() {
                engine.sas.outbound.keys[at] = key;
            }
            engine.sas.outbound.selectors.set(at, &spec.local_ts, &spec.remote_ts);
        }
    }
    Ok(spec.checkpoint.unwrap_or(0))
}

/// Without keys a replacement keeps those that the SA has: they have to be of its suite, and of its slot.
fn has_keys_for(engine: &Engine, spec: &SaSpec, at: usize) -> Result<(), CommandError> {
    let (key, checkpoint) = match spec.direction {
        Direction::Inbound => (&engine.sas.inbound.keys[at], engine.sas.inbound.hot[at].checkpoint),
        Direction::Outbound => (&engine.sas.outbound.keys[at], engine.sas.outbound.hot[at].checkpoint),
    };
    let key = key.as_ref().ok_or(CommandError::Unknown)?;
    let same = Some(key.suite()) == aead_suite(spec.suite) && checkpoint == checkpoint_of(spec);
    if same { Ok(()) } else { Err(CommandError::Field) }
}

/// What a replacement may not change: it would be another SA.
fn same_sa(record: &SaRecord, spec: &SaSpec, esn: bool) -> Result<(), CommandError> {
    let same = record.spi == spec.spi && record.reqid == spec.reqid && esn == spec.esn;
    if same { Ok(()) } else { Err(CommandError::Field) }
}

/// The window in another size, where it is another, with what it knows.
fn resized(
    windows: &mut WindowArena,
    old: Window,
    old_order: Option<u32>,
    size: u32,
) -> Result<Window, CommandError> {
    if old.size() == size {
        return Ok(old);
    }
    let order = WindowArena::order_for(size);
    let start = windows.take(order).ok_or(CommandError::Full)?;
    let (old_start, old_words) = old.place();
    let window = windows.resize(old, start, 1 << order, size);
    if let Some(old_order) = old_order {
        debug_assert_eq!(1 << old_order, old_words);
        windows.give(old_start, old_order);
    }
    Ok(window)
}

fn set_route(engine: &mut Engine, route: &SaRoute) -> Result<u32, CommandError> {
    if route.owner.0 >= engine.workers || route.owner == engine.worker {
        return Err(CommandError::Owner);
    }
    let slot = Slot { spi: route.spi.get(), owner: route.owner, owned: false };
    if let Some((direction, index)) = engine.sas.find_id(route.id) {
        return move_route(engine, route, direction, index);
    }
    check_free(engine, route.id, route.direction, route.index, route.spi.get())?;
    let record = SaRecord::new(route.id, route.spi, route.reqid, route.owner);
    let selectors = match route.direction {
        Direction::Inbound => &mut engine.sas.inbound.selectors,
        Direction::Outbound => &mut engine.sas.outbound.selectors,
    };
    selectors.set(place(route.index), &route.local_ts, &route.remote_ts);
    engine.sas.enter(route.direction, route.index, slot, record);
    engine.refresh_bundle(route.direction, route.reqid);
    Ok(0)
}

/// The SA is known: it has another owner now, and nothing else may differ.
fn move_route(
    engine: &mut Engine,
    route: &SaRoute,
    direction: Direction,
    index: SaIndex,
) -> Result<u32, CommandError> {
    let (slots, record) = match direction {
        Direction::Inbound => {
            (&mut engine.sas.inbound.slots, engine.sas.inbound.records[place(index)].as_mut())
        }
        Direction::Outbound => {
            (&mut engine.sas.outbound.slots, engine.sas.outbound.records[place(index)].as_mut())
        }
    };
    let (Some(slot), Some(record)) = (slots.get_mut(place(index)), record) else {
        return Err(CommandError::Unknown);
    };
    let same = (direction, index, record.spi, record.reqid)
        == (route.direction, route.index, route.spi, route.reqid);
    if slot.owned || !same {
        return Err(CommandError::Index);
    }
    slot.owner = route.owner;
    record.owner = route.owner;
    Ok(0)
}

fn delete(engine: &mut Engine, id: SaId) -> Result<u32, CommandError> {
    let (direction, index) = engine.sas.find_id(id).ok_or(CommandError::Unknown)?;
    let window = engine.sas.inbound.hot.get(place(index)).map(|sa| sa.window.place());
    let record = engine.sas.remove(direction, index).ok_or(CommandError::Unknown)?;
    if let (Some((start, _)), Some(order)) = (window, record.window_order) {
        engine.windows.give(start, order);
    }
    engine.refresh_bundle(direction, record.reqid);
    Ok(0)
}

fn check_free(
    engine: &Engine,
    id: SaId,
    direction: Direction,
    index: SaIndex,
    spi: u32,
) -> Result<(), CommandError> {
    let free = match direction {
        Direction::Inbound => engine.sas.inbound.is_free(index),
        Direction::Outbound => engine.sas.outbound.is_free(index),
    };
    if !free || engine.sas.find_id(id).is_some() {
        return Err(CommandError::Index);
    }
    if id.0 == 0 {
        return Err(CommandError::Field);
    }
    if direction == Direction::Inbound && engine.sas.find_spi(spi).is_some() {
        return Err(CommandError::SpiInUse);
    }
    Ok(())
}

/// Checks every field against what an SA can be.
fn check_spec(engine: &Engine, spec: &SaSpec) -> Result<(), CommandError> {
    if spec.owner != engine.worker {
        return Err(CommandError::Owner);
    }
    let outbound = spec.direction == Direction::Outbound;
    let sound = spec.local.is_ipv4() == spec.remote.is_ipv4()
        && (outbound || spec.has_sound_window())
        && (!outbound || spec.seq_start > 0)
        && (spec.esn || u32::try_from(spec.seq_start).is_ok())
        && spec.checkpoint.is_none_or(|slot| (slot as usize) < engine.checkpoints.len());
    if !sound {
        return Err(CommandError::Field);
    }
    // A manual key may outlive everything that remembers its sequence number, which is the IV here: such a
    // suite would use a pair of key and IV twice (RFC 8750 §7 wants keys that are fresh for each SA).
    if spec.suite.has_implicit_iv() && outbound && spec.checkpoint.is_some() {
        return Err(CommandError::Suite);
    }
    Ok(())
}

/// The cipher's key.
fn expand(engine: &Engine, spec: &SaSpec, keys: &KeyMaterial) -> Result<Key, CommandError> {
    if !keys.fits(spec.suite) {
        return Err(CommandError::KeyLength);
    }
    let suite = aead_suite(spec.suite).ok_or(CommandError::Suite)?;
    let material = (keys.encryption(spec.suite), keys.salt(spec.suite), keys.integrity(spec.suite));
    Key::new(engine.aead, suite, spec.esn, material.0, material.1, material.2)
        .map_err(|_| CommandError::KeyLength)
}

/// The cipher crate's name for a suite: both use the keywords of swanctl.
pub(crate) fn aead_suite(suite: EspSuite) -> Option<Suite> {
    suite.name().parse().ok()
}

/// The hot half that `spec` asks for, without its window.
#[expect(clippy::cast_possible_truncation, reason = "no size of a suite is beyond 32 octets")]
fn inbound(spec: &SaSpec) -> InboundSa {
    InboundSa {
        window: Window::default(),
        flags: 0,
        version: version(spec),
        encap: spec.encap.is_some(),
        esn: spec.esn,
        header_len: (esp::HEADER_LEN + spec.suite.iv_len()) as u8,
        icv_len: spec.suite.icv_len() as u8,
        remote_port: spec.encap.map_or(0, |ports| ports.remote),
        local: Flow::bits(spec.local),
        remote: Flow::bits(spec.remote),
        limits: Limits::new(&spec.lifetimes),
        checkpoint: checkpoint_of(spec),
    }
}

/// The slot of the counter file, as the hot halves keep it.
fn checkpoint_of(spec: &SaSpec) -> u32 {
    spec.checkpoint.unwrap_or(u32::MAX)
}

/// The hot half that `spec` asks for, without its numbers.
fn outbound(spec: &SaSpec, mtu: u16) -> OutboundSa {
    let mut outer = Flow::between(version(spec), Flow::bits(spec.local), Flow::bits(spec.remote), flow::ESP);
    if let Some(ports) = spec.encap {
        outer.protocol = flow::UDP;
        (outer.source_port, outer.destination_port) = (ports.local, ports.remote);
        outer.has_ports = true;
    }
    // Any 20 bits that are the SA's own and not zero, which would mean "no label". The same for all of its
    // packets, so that it tells nothing of what is inside (RFC 6437 §3).
    let flow_label = (spec.spi.get().wrapping_mul(0x9e37_79b1) >> 12) | 1;
    let mut sa = OutboundSa {
        esn: spec.esn,
        dscp: spec.dscp,
        df: spec.df,
        ecn: spec.ecn,
        checkpoint: checkpoint_of(spec),
        limits: Limits::new(&spec.lifetimes),
        template: OuterTemplate::new(&outer, flow_label, spec.spi.get()),
        outer,
        ..OutboundSa::default()
    };
    sa.set_suite(spec.suite);
    sa.set_mtu(mtu);
    sa
}

fn version(spec: &SaSpec) -> IpVersion {
    if spec.local.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 }
}

fn reset(counters: &SaCounters) {
    for counter in [
        &counters.packets,
        &counters.bytes,
        &counters.last_used_ns,
        &counters.highest_seq,
        &counters.replay_errors,
        &counters.icv_errors,
        &counters.lost,
        &counters.selector_errors,
    ] {
        counter.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_its_twin_in_the_cipher_crate() {
        for &suite in EspSuite::ALL {
            let twin = aead_suite(suite).expect("one name for both");
            let sizes = [
                suite.key_len(),
                suite.salt_len(),
                suite.auth_key_len(),
                suite.iv_len(),
                suite.icv_len(),
                suite.block_len(),
            ];
            let twins = [
                twin.key_len(),
                twin.salt_len(),
                twin.auth_key_len(),
                twin.iv_len(),
                twin.icv_len(),
                twin.block_len(),
            ];
            assert_eq!(sizes, twins, "{suite}");
        }
    }
}
