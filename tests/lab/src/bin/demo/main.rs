//! The demo: real SIP calls with RTP between two gateways, on this machine, and what became of them.
#![forbid(unsafe_code)]

mod arguments;
mod keying;
mod media;
mod outside;
mod summary;
mod trace;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use pollux_lab::capture::Capture;
use pollux_lab::gateway::Gateway;
use pollux_lab::huge_pages::HugePages;
use pollux_lab::process::built;
use pollux_lab::sipp::{self, Caller};
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Side, World};
use pollux_lab::{interrupt, rtp};

use arguments::Arguments;
use summary::Summary;

/// Pages of 2 MiB for two gateways of one worker each.
const HUGE_PAGES: u64 = 64;

fn main() -> ExitCode {
    // No exit() here: it would leave everything behind.
    match demo(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every call went through.
fn demo(arguments: &Arguments) -> Result<bool> {
    interrupt::catch()?;
    let started = Instant::now();
    // Without them the gateways take ordinary pages and say so.
    let _pages = HugePages::add(HUGE_PAGES).inspect_err(|error| eprintln!("no huge pages: {error:#}"));
    let mut world = World::new("plx").context("making the network namespaces")?;
    if arguments.keep {
        world.keep_files();
    }
    let summary = run(arguments, &world, started)?;
    Ok(summary.succeeded())
}

fn run(arguments: &Arguments, world: &World, started: Instant) -> Result<Summary> {
    let family = arguments.family();
    media::prepare(world)?;
    if arguments.nat {
        outside::masquerade(world)?;
    }
    say("starting gateway b, then gateway a");
    let configs = keying::configs(arguments)?;
    let handshake = Capture::start(&world.internet, outside::DEVICE, world.folder(), "handshake")?;
    let b = Gateway::start(world, Side::B, &configs.b)?;
    let a = Gateway::start(world, Side::A, &configs.a)?;
    keying::wait_up(arguments, &a, &b, world, handshake)?;

    let outside_file = Capture::start(&world.internet, outside::DEVICE, world.folder(), "outside")?;
    let inside_file = Capture::start(&world.callee, "eth0", world.folder(), "callee")?;
    let mut callee = sipp::callee(&world.callee, Side::B.host(family), world.folder())?;
    sleep(Duration::from_millis(300))?;
    anyhow::ensure!(callee.is_running(), "the callee did not start:\n{}", callee.tail());
    say(&format!("{} calls with media, about ten seconds", arguments.calls));
    let from = Side::A.host(family);
    let mut caller =
        Caller::start(&world.caller, from, Side::B.host(family), arguments.calls, world.folder())?;
    let mut rekeys = keying::Rekeys::new(arguments);
    let limit = Duration::from_secs(90);
    wait_for("the calls to end", limit, || {
        rekeys.drive(&a)?;
        Ok(!caller.is_running())
    })?;
    let calls = caller.finish()?;
    // The echo of the last packets is on its way.
    sleep(Duration::from_millis(500))?;
    let media = media::counters(world);
    let outside_frames = outside_file.stop()?;
    let inside_frames = inside_file.stop()?;
    let summary = Summary {
        keying: keying::summary(arguments, &a, &b, &outside_frames)?,
        calls,
        media,
        rtp: rtp::summary(&inside_frames, Side::B.host(family)),
        outside: outside::count(&outside_frames),
        gateways: [summary::gateway(&a)?, summary::gateway(&b)?],
        asked: arguments.calls.into(),
    };
    a.check_ledger()?;
    b.check_ledger()?;
    eprintln!("done in {} s", started.elapsed().as_secs());
    print!("{}", summary.text());
    if arguments.json {
        println!("{}", summary.json());
    }
    if arguments.keep {
        keep(arguments, world, &a, &b)?;
    }
    Ok(summary)
}

/// Leaves everything running until the user has seen enough.
fn keep(arguments: &Arguments, world: &World, a: &Gateway, b: &Gateway) -> Result<()> {
    eprintln!("everything stays up until you press Ctrl-C. Look around from another terminal:");
    let pollux = built("pollux")?;
    for (name, gateway) in [("a", a), ("b", b)] {
        eprintln!(
            "  gateway {name}:  {} status --config {}",
            pollux.display(),
            gateway.config_file().display()
        );
    }
    let callee = Side::B.host(arguments.family());
    eprintln!("  the caller: ip netns exec {} ping {callee}", world.caller.name());
    eprintln!("  captures:   {} (stays)", world.folder().display());
    while !interrupt::asked() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Progress goes to standard error.
fn say(text: &str) {
    eprintln!("{text}");
}
