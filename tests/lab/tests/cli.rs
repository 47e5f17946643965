//! The operator's command against running gateways: what it prints, how it ends, what it refuses.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::command::output;
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::process::{Process, built};
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};
use serde_json::Value;

/// How a command ended and what it printed.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `pollux` with arguments separated by white space.
fn pollux(arguments: &str) -> Result<Ended> {
    let output = output(Command::new(built("pollux")?).args(arguments.split_whitespace()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// Both gateways with one tunnel, and a ping that went through.
fn gateways(world: &World) -> Result<(Gateway, Gateway, [Config; 2])> {
    let [config_a, config_b] = configs(&[Tunnel::new(1, Family::V4, Family::V4)?]);
    let b = Gateway::start(world, Side::B, &config_b)?;
    let a = Gateway::start(world, Side::A, &config_a)?;
    ping(world)?;
    Ok((a, b, [config_a, config_b]))
}

fn ping(world: &World) -> Result<()> {
    let target = Side::B.host(Family::V4);
    wait_for("a ping", Duration::from_secs(10), || {
        Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
    })
}

/// A folder for files of one test; gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pollux-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const GOOD: &str = r#"
[paths]
run_dir = "/run/pollux-nowhere"
secrets = "secrets.toml"

[dataplane]
wan = "eth0"
lan = "eth1"

[[sa]]
name = "out"
direction = "out"
spi = 0x1001
local = "192.0.2.2"
remote = "198.51.100.2"
suite = "aes128gcm16"
key = "out"
reqid = 1

[[policy]]
name = "media"
action = "protect"
direction = "out"
reqid = 1
local_ts = "10.1.0.0/16"
remote_ts = "10.2.0.0/16"
"#;
const SECRETS: &str = "[keys]\nout = \"000102030405060708090a0b0c0d0e0f10111213\"\n";

#[test]
fn check_tells_each_mistake_in_a_line_and_ends_with_1() -> Result<()> {
    let folder = Folder::new("check")?;
    folder.write("secrets.toml", SECRETS, 0o600)?;
    let good = folder.write("good.toml", GOOD, 0o644)?;
    let ended = pollux(&format!("check {}", good.display()))?;
    ensure!(ended.code == Some(0), "{}{}", ended.out, ended.err);
    for (name, from, to, line, key) in [
        ("unknown key", "wan = ", "wam = \"x\"\nwan = ", 7, "wam"),
        ("prefix too long", "10.1.0.0/16", "10.1.0.0/33", 25, "local_ts"),
        ("reserved SPI", "0x1001", "255", 13, "spi"),
        ("unknown suite", "aes128gcm16", "aes128gcm", 16, "suite"),
        ("no such key", "key = \"out\"", "key = \"in\"", 10, "key"),
    ] {
        ensure!(GOOD.contains(from), "{name}: `{from}` is not in the text");
        let bad = folder.write("bad.toml", &GOOD.replacen(from, to, 1), 0o644)?;
        let ended = pollux(&format!("check {}", bad.display()))?;
        let want = format!("{}:{line}: ", bad.display());
        let told = ended
            .out
            .lines()
            .any(|text| text.starts_with(&want) && text.contains(&format!("{key}: ")) && text.contains("; "));
        ensure!(ended.code == Some(1) && told, "{name}: {:?}\n{}{}", ended.code, ended.out, ended.err);
        let json = pollux(&format!("check {} --json", bad.display()))?;
        let rows: Value = serde_json::from_str(&json.out).context("JSON")?;
        let problems = rows["problems"].as_array().context("a list")?;
        let found = problems.iter().any(|problem| problem["line"] == line);
        ensure!(json.code == Some(1) && found, "{name}: {rows}");
    }
    folder.write("secrets.toml", SECRETS, 0o644)?;
    let ended = pollux(&format!("check {}", good.display()))?;
    ensure!(ended.code == Some(1) && ended.out.contains("secrets.toml"), "others may read: {}", ended.out);
    let ended = pollux(&format!("check {}", folder.0.join("missing.toml").display()))?;
    ensure!(ended.code == Some(1) && ended.out.contains("missing.toml"), "missing: {}", ended.out);
    Ok(())
}

#[test]
fn misuse_ends_with_2_and_absence_of_daemons_with_1() -> Result<()> {
    for misuse in [
        "",
        "fly",
        "sas --colour",
        "explain 10.1.0.10",
        "explain here there udp",
        "rekey",
        "terminate --child a --ike b",
        "log --lines many",
    ] {
        let ended = pollux(misuse)?;
        ensure!(ended.code == Some(2) && !ended.err.is_empty(), "`pollux {misuse}`: {:?}", ended.code);
    }
    help_of_every_command_has_examples()?;
    let folder = Folder::new("absent")?;
    folder.write("secrets.toml", SECRETS, 0o600)?;
    let file = folder.write("pollux.toml", GOOD, 0o644)?;
    for verb in ["status", "sas", "policies", "workers", "ports", "drops", "reload", "list-sas"] {
        let ended = pollux(&format!("{verb} --config {}", file.display()))?;
        ensure!(ended.code == Some(1) && !ended.err.is_empty(), "{verb}: {:?} {}", ended.code, ended.err);
    }
    Ok(())
}

fn help_of_every_command_has_examples() -> Result<()> {
    let help = pollux("--help")?;
    ensure!(help.code == Some(0) && help.out.contains("Examples:"), "{}", help.out);
    let (_, list) = help.out.split_once("Commands:\n").context("commands")?;
    let verbs: Vec<&str> = list.lines().map_while(|line| line.split_whitespace().next()).collect();
    ensure!(verbs.len() > 15 && verbs.contains(&"explain"), "{verbs:?}");
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let help = pollux(&format!("{verb} --help"))?;
        let example = format!("\n  pollux {verb}");
        let has = help.out.split_once("\nExample").is_some_and(|(_, examples)| examples.contains(&example));
        ensure!(help.code == Some(0) && has, "{verb}: {}{}", help.out, help.err);
    }
    Ok(())
}

#[test]
fn every_reading_command_has_a_table_and_json() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("cli")?;
    let (a, b, _) = gateways(&world)?;
    for (verb, words) in [
        ("status", &["data plane", "control", "frames", "0 missing", "REQUESTED", "EFFECTIVE"][..]),
        ("sas", &["NAME", "SPI", "a-to-b-1", "b-to-a-1", "aes128gcm16"]),
        ("policies", &["ORDER", "tunnel-1", "10.1.0.0/16", "10.2.0.0/16", "protect"]),
        ("workers", &["WORKER", "CPU s", "SEALED"]),
        ("ports", &["PORT", "wan0", "lan0", "pollux0", "XDP"]),
        ("drops --all", &["REASON", "bad_icv", "XfrmInStateProtoError"]),
    ] {
        let text = a.cli(verb)?;
        for word in words {
            ensure!(text.contains(word), "{verb}: `{word}` is missing:\n{text}");
        }
        let json = a.json(verb)?;
        ensure!(json.is_array() || json.is_object(), "{verb}: {json}");
    }
    for verb in ["list-conns", "list-sas"] {
        ensure!(!a.cli(verb)?.trim().is_empty(), "{verb} says nothing");
        let rows = a.json(verb)?;
        ensure!(rows.as_array().is_some_and(Vec::is_empty), "{verb}: {rows}");
    }
    ensure!(a.json("sas")?.as_array().is_some_and(|rows| rows.len() == 2), "{}", a.json("sas")?);
    let (host, far) = (Side::A.host(Family::V4), Side::B.host(Family::V4));
    let explained = a.json(&format!("explain {host}:40000 {far}:6000 udp"))?;
    ensure!(explained["verdict"] == "protect" && explained["spi"] == 0x1002, "{explained}");
    ensure!(explained["direction"] == "out" && explained["drop"].is_null(), "{explained}");
    ensure!(explained["policy_name"] == "tunnel-1" && explained["sa_name"] == "a-to-b-1", "{explained}");
    let text = a.cli(&format!("explain {host}:40000 {far}:6000 udp"))?;
    ensure!(text.contains("tunnel-1: protect") && text.contains("a-to-b-1: SPI"), "{text}");
    let text = a.cli(&format!("explain {far}:6000 {host}:40000 udp"))?;
    ensure!(
        text.contains("must arrive in ESP (SPI 0x00001003); in clear it is dropped: clear_for_protected"),
        "{text}"
    );
    let back = a.json(&format!("explain {far}:6000 {host}:40000 udp"))?;
    ensure!(back["direction"] == "in" && back["verdict"] == "protect", "{back}");
    let other = a.json(&format!("explain {host}:40000 203.0.113.9:6000 udp"))?;
    ensure!(other["verdict"] == "kernel", "{other}");
    let upper = a.json(&format!("explain {host}:40000 {far}:6000 UDP"))?;
    ensure!(upper["verdict"] == "protect", "{upper}");
    got_is_told_beside_asked(&a)?;
    nothing_panics_where_nobody_reads(&a)?;
    a.check_ledger()?;
    b.check_ledger()
}

/// Every command that prints ends quietly on a closed pipe, and with a line on a full device.
fn nothing_panics_where_nobody_reads(gateway: &Gateway) -> Result<()> {
    let program = built("pollux")?;
    for verb in [
        "--help",
        "check",
        "status",
        "sas",
        "policies",
        "workers",
        "ports",
        "drops --all",
        "log",
        "list-conns",
        "list-sas",
        "reload",
        "explain 10.1.0.10 10.2.0.10 udp",
        "status --json",
        "sas --json",
    ] {
        let line = format!("{} {verb} --config {}", program.display(), gateway.config_file().display());
        let run = |script: &str| -> Result<Ended> {
            let output = output(Command::new("bash").args(["-c", script]))?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
        };
        let piped = run(&format!("set -o pipefail; {line} | true"))?;
        ensure!(piped.err.is_empty(), "`{verb} | true`: {}", piped.err);
        let full = run(&format!("{line} > /dev/full"))?;
        ensure!(
            full.code != Some(101) && !full.err.contains("panicked"),
            "`{verb} > /dev/full`: {}",
            full.err
        );
        ensure!(
            verb == "--help" || full.code == Some(1) && full.err.contains("standard output"),
            "{verb}: {}",
            full.err
        );
        let both = run(&format!("{line} > /dev/full 2> /dev/full"))?;
        ensure!(both.code != Some(101), "`{verb}` with both full: {:?}", both.code);
    }
    Ok(())
}

/// Start-up prints what was really got, and `status` shows the same again.
fn got_is_told_beside_asked(gateway: &Gateway) -> Result<()> {
    let status = gateway.status()?;
    let logs = gateway.logs();
    for (what, got) in [
        ("capabilities", "net_admin"),
        ("host port", "pollux0"),
        ("huge pages", "frames of 2048 octets"),
        ("xdp wan0", "driver"),
        ("xdp lan0", "driver"),
        ("socket wan0 queue 0", "copy"),
        ("socket wan0 queue 0", "NAPI id"),
        ("socket lan0 queue 0", "shared UMEM"),
        ("aead", ""),
        ("cpu features", ""),
        ("core of worker 0", "NUMA node"),
    ] {
        ensure!(
            logs.lines().any(|line| line.starts_with(&format!("{what}: requested ")) && line.contains(got)),
            "{what}: {logs}"
        );
        let rows = status["dataplane"]["effective"].as_array().context("a list")?;
        let row = rows.iter().find(|row| row["what"] == what);
        let told = row
            .and_then(|row| row["effective"].as_str())
            .is_some_and(|told| !told.is_empty() && told.contains(got));
        ensure!(told || what == "capabilities", "{what}: {rows:#?}");
    }
    Ok(())
}

#[test]
fn up_starts_both_daemons_and_down_leaves_nothing() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("upd")?;
    let (mut a, b, [mut config, _]) = gateways(&world)?;
    a.down()?;
    let links = world.gateway_a.ip("link show")?;
    ensure!(!links.contains("pollux0") && !links.contains("xdp"), "left behind:\n{links}");
    ensure!(!world.gateway_a.ip("rule")?.contains("proto 80"), "rules are left behind");
    let up = a.json("up")?;
    ensure!(up["control"]["sas_installed"] == 2 && up["dataplane"]["policies"] == 2, "{up}");
    ping(&world)?;
    let again = a.json("up")?;
    ensure!(again["dataplane"]["pid"] == up["dataplane"]["pid"], "`up` twice started a second data plane");
    ensure!(again["control"]["pid"] == up["control"]["pid"], "`up` twice started a second control");
    a.check_ledger()?;
    b.check_ledger()?;
    // A mistake in the file keeps nothing up.
    config.table("[[policy]]\naction = \"protekt\"");
    a.configure(&config)?;
    a.down()?;
    ensure!(!world.gateway_a.ip("link show")?.contains("pollux0"), "pollux0 is left behind");
    let ended = pollux(&format!("up --config {}", a.config_file().display()))?;
    ensure!(ended.code == Some(1) && ended.err.contains("protekt"), "{:?} {}", ended.code, ended.err);
    Ok(())
}

#[test]
fn reload_of_a_broken_file_changes_nothing_and_a_mended_one_touches_no_sa() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("rld")?;
    let (a, b, [config, _]) = gateways(&world)?;
    // Whatever the file says by now: the command finds the gateway that runs.
    let rows = |what: &str| a.json(what);
    let (sas, policies) = (rows("sas")?, rows("policies")?);
    let mut broken = config.clone();
    broken.table("[[policy]]\nname = \"more\"\naction = \"protekt\"\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.9.0.0/16\"");
    a.configure(&broken)?;
    let ended = pollux(&format!("reload --config {}", a.config_file().display()))?;
    let told = ended.err.contains("pollux.toml:") && ended.err.contains("protekt");
    ensure!(ended.code == Some(1) && told, "{:?} {}{}", ended.code, ended.out, ended.err);
    ensure!(rows("policies")? == policies, "the policies changed: {}", rows("policies")?);
    let ids = |rows: &Value| -> Vec<Value> {
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| serde_json::json!([row["id"], row["spi"], row["fingerprint"]])).collect()
    };
    ensure!(ids(&rows("sas")?) == ids(&sas), "the SAs changed: {}", rows("sas")?);
    ping(&world)?;
    let mut more = config;
    more.table("[[policy]]\nname = \"more\"\naction = \"bypass\"\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.9.0.0/16\"");
    a.configure(&more)?;
    let report = a.json("reload")?;
    ensure!(report["sas_untouched"] == 2 && report["policies_changed"] == true, "{report}");
    let after = rows("sas")?;
    for (before, after) in sas.as_array().into_iter().flatten().zip(after.as_array().into_iter().flatten()) {
        ensure!(after["highest_seq"].as_u64() >= before["highest_seq"].as_u64(), "{before} became {after}");
    }
    ping(&world)?;
    a.check_ledger()?;
    b.check_ledger()
}

#[test]
fn reload_gives_live_negotiated_sas_other_marks_and_says_what_waits_for_the_rekey() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("mrk")?;
    let [with_a, with_b] =
        ["", "copy_ecn = \"off\"\ncopy_df = \"clear\"\nreplay_window = 4096\n"].map(|child| Connection {
            our_child: child.to_owned(),
            ..Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16")
        });
    let b = Gateway::start(&world, Side::B, &with_a.pollux(Side::B, "none"))?;
    let a = Gateway::start(&world, Side::A, &with_a.pollux(Side::A, "none"))?;
    a.cli(&format!("initiate --child {NAME}"))?;
    ping(&world)?;
    let marks = |ecn: &str, df: &str| -> Result<Vec<Value>> {
        let rows = a.json("sas")?;
        let rows = rows.as_array().cloned().unwrap_or_default();
        ensure!(rows.len() == 2 && rows.iter().all(|row| row["ecn"] == ecn && row["df"] == df), "{rows:?}");
        Ok(rows.iter().map(|row| row["spi"].clone()).collect())
    };
    let before = marks("normal", "copy")?;
    a.configure(&with_b.pollux(Side::A, "none"))?;
    let report = a.json("reload")?;
    let waits = report["waits_for_rekey"].to_string();
    ensure!(waits.contains("replay_window of") && waits.matches("replay_window").count() == 1, "{report}");
    ensure!(report["sas_replaced"].as_array().is_some_and(|names| names.len() == 2), "{report}");
    ensure!(marks("off", "clear")? == before, "the SAs are others");
    ping(&world)?;
    let again = a.json("reload")?;
    ensure!(again["sas_replaced"].as_array().is_some_and(Vec::is_empty), "{again}");
    a.check_ledger()?;
    b.check_ledger()
}

#[test]
fn a_second_control_and_another_users_are_refused() -> Result<()> {
    skip_unless!("ip", "ping", "setpriv", "python3");
    let world = World::new("two")?;
    let (a, b, _) = gateways(&world)?;
    let mut command = Command::new(built("pollux-control")?);
    command.arg("--config").arg(a.config_file());
    let mut second = Process::start("second control", &mut command, &world.folder().join("second.log"))?;
    ensure!(!second.wait(Duration::from_secs(10))?.success(), "a second control came up:\n{}", second.log());
    ensure!(second.log().contains("another pollux-control"), "{}", second.log());
    let run_dir = a.folder().join("run");
    let attach = run_dir.join("attach.sock");
    ensure!(attaching(&attach, 0)?.contains("already"), "{}", attaching(&attach, 0)?);
    // Neither through the folder nor, should it be open to all, through the sockets in it.
    let control = run_dir.join("control/control.sock");
    for socket in [&attach, &control, &run_dir.join("dataplane.sock")] {
        ensure!(attaching(socket, 65_534)?.contains("denied"), "anyone may connect to {}", socket.display());
    }
    for folder in control.ancestors().skip(1).take_while(|folder| folder.starts_with(world.folder())) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    }
    for socket in [&attach, &control, &run_dir.join("dataplane.sock")] {
        ensure!(attaching(socket, 65_534)?.contains("denied"), "anyone may connect to {}", socket.display());
    }
    let status = a.status()?;
    ensure!(status["control"]["attached"] == true && status["control"]["attachments"] == 1, "{status}");
    ping(&world)?;
    a.check_ledger()?;
    b.check_ledger()
}

/// What happens to user `uid` that says hello at the data plane's attach socket, in words.
fn attaching(socket: &Path, uid: u32) -> Result<String> {
    let script = r#"
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(5)
try:
    s.connect(sys.argv[1])
except PermissionError:
    print("denied"); sys.exit()
except OSError as error:
    print(error); sys.exit()
try:
    s.send(struct.pack("<II", 0x504f4c58, int(sys.argv[2])))
except OSError:
    pass
answer = s.recv(4096)
kind = answer[4] if len(answer) > 4 else None
print({0: "welcome", 1: "user", 2: "already attached", 3: "version"}.get(kind, answer.hex()))
"#;
    let uid = uid.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "/usr/bin/python3", "-c", script])
        .arg(socket)
        .arg(pollux_abi::layout::ABI_VERSION.to_string());
    let output = output(&mut command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
