//! The demo, as a user runs it.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pollux_lab::command::output;
use pollux_lab::process::{Process, built};
use pollux_lab::skip_unless;
use pollux_lab::wait::sleep;
use serde_json::Value;

fn left_behind() -> Result<String> {
    let namespaces = pollux_lab::command::sh("ip netns list")?;
    let own: Vec<&str> = namespaces.lines().filter(|line| line.starts_with("plx")).collect();
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let mounted: Vec<&str> = mounts.lines().filter(|line| line.contains("pollux-plx")).collect();
    Ok(format!(
        "{own:?} {mounted:?} huge pages {}",
        std::fs::read_to_string("/proc/sys/vm/nr_hugepages")?.trim()
    ))
}

fn demo(arguments: &str, keying: &str) -> Result<()> {
    let (before, started) = (left_behind()?, Instant::now());
    let mut command = Command::new(built("demo")?);
    command.args(["--calls", "5", "--json"]).args(arguments.split_whitespace());
    let output = output(&mut command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = || format!("demo {arguments}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).with_context(said)?;
    ensure!(output.status.success(), "{}", said());
    ensure!(summary["calls_ok"] == 5 && summary["calls_failed"] == 0, "{}", said());
    ensure!(summary["rtp_lost"] == 0 && summary["clear_outside"] == 0, "{}", said());
    ensure!(
        summary["rtp_sent"].as_u64() > Some(2_000) && summary["esp_outside"].as_u64() > Some(2_000),
        "{}",
        said()
    );
    ensure!(summary["rtp_received"] == summary["rtp_sent"] && summary["drops"].is_object(), "{}", said());
    for words in [
        "calls       5 of 5 completed, 0 failed",
        " received, 0 lost",
        "jitter ",
        "DSCP: ",
        "EF ",
        "CS3 ",
        "gateway a   worker 0: ",
        " CPU s",
        "drops: ",
    ] {
        ensure!(text.contains(words), "`{words}` is missing: {}", said());
    }
    ensure!(started.elapsed() < Duration::from_mins(2), "it took {:?}", started.elapsed());
    ensure!(summary["keying"] == keying, "{}", said());
    if keying == "ikev2" {
        // Both exchanges of the handshake, in the words of the trace.
        let trace = String::from_utf8_lossy(&output.stderr).into_owned();
        for message in
            ["IKE_SA_INIT request 0", "IKE_SA_INIT response 0", "IKE_AUTH request 1", "IKE_AUTH response 1"]
        {
            ensure!(trace.contains(message), "no {message}: {}", said());
        }
        ensure!(
            summary["child_rekeys"] == 1 && summary["ike_rekeys"] == 1 && summary["lost_to_rekey"] == 0,
            "{}",
            said()
        );
    }
    ensure!(left_behind()? == before, "left behind: {} instead of {before}", left_behind()?);
    Ok(())
}

#[test]
fn calls_complete_under_manual_keys() -> Result<()> {
    skip_unless!("ip", "tcpdump", "sipp", "nft");
    demo("--static", "static")
}

#[test]
fn calls_complete_in_udp_over_ipv6_under_manual_keys() -> Result<()> {
    skip_unless!("ip", "tcpdump", "sipp", "nft");
    demo("--static --udp-encap --ipv6", "static")
}

#[test]
fn calls_complete_under_ikev2_and_survive_its_rekeys() -> Result<()> {
    skip_unless!("ip", "tcpdump", "sipp", "nft");
    demo("", "ikev2")
}

#[test]
fn calls_complete_through_a_nat() -> Result<()> {
    skip_unless!("ip", "tcpdump", "sipp", "nft");
    demo("--nat", "ikev2")
}

#[test]
fn ctrl_c_in_mid_call_leaves_nothing_behind() -> Result<()> {
    skip_unless!("ip", "tcpdump", "sipp", "nft");
    let before = left_behind()?;
    let log = std::env::temp_dir().join(format!("pollux-demo-{}.log", std::process::id()));
    let mut command = Command::new(built("demo")?);
    // As a terminal does it, the signal goes to everything that the demo has started, too.
    command.args(["--static", "--calls", "5"]).process_group(0);
    let mut demo = Process::start("demo", &mut command, &log)?;
    demo.wait_for_log("calls with media", Duration::from_mins(1))?;
    sleep(Duration::from_secs(2))?;
    killpg(Pid::from_raw(i32::try_from(demo.pid())?), Signal::SIGINT)?;
    let status = demo.wait(Duration::from_secs(20))?;
    std::fs::remove_file(&log)?;
    ensure!(!status.success(), "an interrupted demo says that it succeeded");
    ensure!(left_behind()? == before, "left behind: {} instead of {before}", left_behind()?);
    Ok(())
}

#[test]
fn what_is_kept_can_be_looked_at_as_it_says_and_goes_at_ctrl_c() -> Result<()> {
    skip_unless!("ip", "tcpdump", "sipp", "nft");
    let before = left_behind()?;
    let log = std::env::temp_dir().join(format!("pollux-kept-{}.log", std::process::id()));
    let mut command = Command::new(built("demo")?);
    command.args(["--static", "--calls", "1", "--keep"]).process_group(0);
    let mut demo = Process::start("demo", &mut command, &log)?;
    demo.wait_for_log("captures: ", Duration::from_mins(1))?;
    let said = demo.log();
    let told = |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    for name in ["gateway a:", "gateway b:", "the caller:"] {
        let line = told(name).with_context(|| format!("no `{name}` in {said}"))?;
        let line = line.replace(" ping ", " ping -c1 -W2 ");
        let shown = pollux_lab::command::sh(&line)?;
        ensure!(shown.contains("data plane") || shown.contains(" 0% packet loss"), "{line}: {shown}");
    }
    let captures = told("captures:").and_then(|line| line.split_whitespace().next()).context("captures")?;
    killpg(Pid::from_raw(i32::try_from(demo.pid())?), Signal::SIGINT)?;
    demo.wait(Duration::from_secs(20))?;
    std::fs::remove_file(&log)?;
    // What was captured stays, for a closer look.
    ensure!(std::fs::metadata(format!("{captures}/outside.pcap"))?.len() > 100_000, "{captures}");
    std::fs::remove_dir_all(captures)?;
    ensure!(left_behind()? == before, "left behind: {} instead of {before}", left_behind()?);
    Ok(())
}
