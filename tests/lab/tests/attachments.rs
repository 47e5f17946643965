//! What a control process has asked for and does not live to hear is no answer to the next one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pollux_abi::command::{Direction, PolicyAction, PolicySpec};
use pollux_abi::layout::RING_SLOTS;
use pollux_abi::{Command, CommandError, Event, PolicyId, SelectorPair, Ticket, TrafficSelector};
use pollux_lab::gateway::Gateway;
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Family, Side, World};
use pollux_shm::{ControlRing, RingError, Session};

/// A gateway whose control process has gone: the test takes its place.
fn gateway(world: &World) -> Result<Gateway> {
    let [config, _] = configs(&[Tunnel::new(1, Family::V4, Family::V4)?]);
    let mut gateway = Gateway::start(world, Side::A, &config)?;
    gateway.kill_control()?;
    Ok(gateway)
}

fn attach(gateway: &Gateway) -> Result<Session> {
    let socket = gateway.folder().join("run/attach.sock");
    let mut session = None;
    // The data plane may not have noticed yet that the last one has gone.
    wait_for("an attachment", Duration::from_secs(5), || {
        session = Session::attach(&socket).ok();
        Ok(session.is_some())
    })?;
    session.context("attached")
}

fn send(ring: &mut ControlRing, command: &Command, ticket: u64) -> Result<()> {
    let slot = command.encode(Ticket(ticket));
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let written = ring.commands.write(&slot);
        ring.commands.wake();
        match written {
            Ok(()) => return Ok(()),
            Err(RingError::Full) if Instant::now() < until => sleep(Duration::from_millis(1))?,
            Err(error) => bail!("{error:?}"),
        }
    }
}

/// Acknowledgements of all rings that come within a time.
fn acks(session: &mut Session, time: Duration) -> Result<Vec<(Ticket, Result<u32, CommandError>)>> {
    let until = Instant::now() + time;
    let mut acks = Vec::new();
    while Instant::now() < until {
        for ring in &mut session.rings {
            ring.events.awake();
            while let Some(slot) = ring.events.read()? {
                if let Some(Event::Ack { ticket, result }) = Event::decode(&slot) {
                    acks.push((ticket, result));
                }
            }
        }
        sleep(Duration::from_millis(1))?;
    }
    Ok(acks)
}

/// The last ring is the housekeeper's.
fn housekeeper(session: &mut Session) -> Result<&mut ControlRing> {
    session.rings.last_mut().context("a ring")
}

#[test]
fn acknowledgements_that_a_dead_control_process_left_unread_are_not_its_successors() -> Result<()> {
    skip_unless!("ip");
    let world = World::new("atu")?;
    let gateway = gateway(&world)?;
    let rings = attach(&gateway)?.rings.len();
    ensure!(rings == 2, "a worker's and the housekeeper's: {rings}");
    for at in 0..rings {
        let mut first = attach(&gateway)?;
        // More than the ring of events takes: the rest waits in the data plane.
        for ticket in 1..=u64::from(RING_SLOTS) + 200 {
            send(&mut first.rings[at], &Command::Barrier, ticket)?;
        }
        sleep(Duration::from_millis(50))?;
        drop(first);
        let mut second = attach(&gateway)?;
        let heard = acks(&mut second, Duration::from_millis(200))?;
        ensure!(heard.is_empty(), "ring {at}: {} answers to another's questions", heard.len());
        // Its own are answered, with tickets that the dead one has used too.
        send(&mut second.rings[at], &Command::Barrier, 3)?;
        let heard = acks(&mut second, Duration::from_millis(200))?;
        ensure!(heard == [(Ticket(3), Ok(0))], "ring {at}: {heard:?}");
    }
    gateway.check_ledger()
}

#[test]
fn a_commit_of_a_dead_control_process_answers_nobody() -> Result<()> {
    skip_unless!("ip");
    let world = World::new("atc")?;
    let gateway = gateway(&world)?;
    let any = TrafficSelector::any_v4();
    let policy = PolicySpec {
        id: PolicyId(1),
        direction: Direction::Inbound,
        selectors: SelectorPair { local: any, remote: any },
        action: PolicyAction::Bypass,
    };
    // A list that was begun is not its successor's.
    let mut first = attach(&gateway)?;
    send(housekeeper(&mut first)?, &Command::PolicyBegin, 1)?;
    ensure!(acks(&mut first, Duration::from_millis(100))? == [(Ticket(1), Ok(0))], "no answer");
    drop(first);
    let mut second = attach(&gateway)?;
    send(housekeeper(&mut second)?, &Command::PolicyAdd(policy), 1)?;
    let heard = acks(&mut second, Duration::from_millis(100))?;
    ensure!(heard == [(Ticket(1), Err(CommandError::Field))], "{heard:?}");
    drop(second);
    // It dies at any moment of its commit.
    for round in 0..150_u64 {
        let mut first = attach(&gateway)?;
        let ring = housekeeper(&mut first)?;
        for (command, ticket) in
            [(Command::PolicyBegin, 1), (Command::PolicyAdd(policy), 2), (Command::PolicyCommit, 3)]
        {
            send(ring, &command, ticket)?;
        }
        sleep(Duration::from_micros(round * 20))?;
        drop(first);
        let mut second = attach(&gateway)?;
        let heard = acks(&mut second, Duration::from_millis(10))?;
        ensure!(heard.is_empty(), "round {round}: {heard:?}");
    }
    let mut last = attach(&gateway)?;
    send(housekeeper(&mut last)?, &Command::Barrier, 3)?;
    let heard = acks(&mut last, Duration::from_millis(200))?;
    ensure!(heard == [(Ticket(3), Ok(0))], "{heard:?}");
    drop(last);
    gateway.check_ledger()
}
