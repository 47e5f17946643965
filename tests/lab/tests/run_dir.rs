//! The run directory against those who are not root: the user that control runs as, taken over, and anybody.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::command::output;
use pollux_lab::gateway::Gateway;
use pollux_lab::process::Process;
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

const CONTROL: u32 = 4_242;
const NOBODY: u32 = 65_534;

/// Whether a shell line succeeds for a user without any rights of root.
fn succeeds(uid: u32, line: &str) -> Result<bool> {
    let uid = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--bounding-set=-all"]);
    Ok(output(command.args(["/bin/sh", "-c", line]))?.status.success())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(std::fs::symlink_metadata(path).with_context(|| path.display().to_string())?.permissions().mode()
        & 0o7777)
}

fn ping(world: &World) -> Result<()> {
    let target = Side::B.host(Family::V4);
    wait_for("a ping", Duration::from_secs(10), || {
        Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
    })
}

fn sockets_are_for_root_and_control_alone(run: &str) -> Result<()> {
    let connect = |socket: &str| {
        let socket = format!("{run}/{socket}");
        format!("python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{socket}\")'")
    };
    ensure!(!succeeds(NOBODY, &connect("dataplane.sock"))?, "anybody asks the data plane");
    ensure!(!succeeds(NOBODY, &connect("control/control.sock"))?, "anybody asks control");
    ensure!(
        succeeds(CONTROL, &connect("dataplane.sock"))?,
        "control's user cannot read back what is installed"
    );
    let stop = format!(
        "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect(\"{run}/dataplane.sock\"); \
         s.send(b\"{{\\\"op\\\":\\\"stop\\\"}}\\n\"); exit(b\"only root\" not in s.recv(4096))'"
    );
    ensure!(succeeds(CONTROL, &stop)?, "control's user may stop the data plane");

    Ok(())
}

#[test]
fn a_hostile_control_user_and_a_local_user_touch_nothing_of_root_s() -> Result<()> {
    skip_unless!("ip", "ping", "setpriv", "python3");
    let world = World::new("run")?;
    let [mut config_a, config_b] = configs(&[Tunnel::new(1, Family::V4, Family::V4)?]);
    config_a.set("control_uid", &CONTROL.to_string());
    let b = Gateway::start(&world, Side::B, &config_b)?;
    let mut a = Gateway::start(&world, Side::A, &config_a)?;
    ping(&world)?;
    let run = a.folder().join("run");
    let victim = world.folder().join("victim");
    std::fs::write(&victim, "precious")?;
    for folder in run.ancestors().skip(1).take_while(|folder| folder.starts_with(world.folder())) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    }
    let modes = [("", 0o711), ("control", 0o770), ("dataplane.sock", 0o660), ("attach.sock", 0o660)];
    for (name, expected) in modes {
        ensure!(mode(&run.join(name))? == expected, "{name} has mode {:o}", mode(&run.join(name))?);
    }

    let (run, target) = (run.display(), victim.display());
    for line in [
        format!("ln -s {target} {run}/pollux-dataplane.log"),
        format!("ln -sf {target} {run}/attach.sock"),
        format!("mv {run}/bpf {run}/elsewhere"),
        format!("rm -f {run}/dataplane.sock"),
        format!("mv {run}/control {run}/elsewhere"),
        format!("chmod 777 {run}"),
        format!("ls {run}"),
        format!("touch {run}/anything"),
    ] {
        for uid in [CONTROL, NOBODY] {
            ensure!(!succeeds(uid, &line)?, "user {uid} can: {line}");
        }
    }
    ensure!(!succeeds(NOBODY, &format!("ls {run}/control"))?, "anybody looks into control's folder");
    sockets_are_for_root_and_control_alone(&run.to_string())?;

    // In its own folder it may do what it likes: root's processes follow none of it.
    a.kill_control()?;
    let line = format!("rm -f {run}/control/control.sock && ln -s {target} {run}/control/control.sock");
    ensure!(succeeds(CONTROL, &line)?, "control's user has no folder of its own");
    a.kill_dataplane()?;
    a.start_dataplane()?;
    a.start_control()?;
    a.wait_installed()?;
    ping(&world)?;
    ensure!(std::fs::read_to_string(&victim)? == "precious", "a link was followed");
    ensure!(mode(&victim)? & 0o022 == 0, "the mode of a link's target was changed");
    a.check_ledger()?;
    b.check_ledger()
}

/// Octets on disk below a folder.
fn octets_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != "bpf" {
            sum += octets_below(&entry.path())?;
        } else if kind.is_file() {
            sum += entry.metadata()?.len();
        }
    }
    Ok(sum)
}

/// Connects to the operator's and control's sockets as fast as it goes, and says nothing.
const CONNECTS: &str = "import socket, sys, time
end = time.monotonic() + 5
while time.monotonic() < end:
  for path, kind in (('attach.sock', socket.SOCK_SEQPACKET), ('dataplane.sock', socket.SOCK_STREAM),
                     ('control/control.sock', socket.SOCK_STREAM)):
    s = socket.socket(socket.AF_UNIX, kind)
    try: s.connect(sys.argv[1] + '/' + path)
    except OSError: pass
    s.close()
";

/// ESP in UDP with SPIs that nobody has, and IKE that is none, to an address, for as long.
const STRANGER: &str = "import os, random, socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end, count = time.monotonic() + 5, 0
while time.monotonic() < end:
  spi = random.randrange(256, 1 << 32)
  s.sendto(struct.pack('!II', spi, 1) + os.urandom(64), (sys.argv[1], 4500))
  s.sendto(os.urandom(8) + bytes(8) + bytes([33, 0x20 + count % 16, 34, 8]) + os.urandom(44), (sys.argv[1], 500))
  count += 1
print(count)
";

#[test]
fn what_outsiders_do_all_day_fills_no_disk() -> Result<()> {
    skip_unless!("ip", "ping", "setpriv", "python3");
    let world = World::new("disk")?;
    let [mut config_a, config_b] = configs(&[Tunnel::new(1, Family::V4, Family::V4)?]);
    config_a.set("control_uid", &CONTROL.to_string());
    let _b = Gateway::start(&world, Side::B, &config_b)?;
    let a = Gateway::start(&world, Side::A, &config_a)?;
    ping(&world)?;
    let run = a.folder().join("run");
    for folder in run.ancestors().skip(1).take_while(|folder| folder.starts_with(world.folder())) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    }
    let before = octets_below(a.folder())?;

    let mut floods = Vec::new();
    for (number, uid) in [CONTROL, CONTROL, NOBODY, NOBODY].into_iter().enumerate() {
        let uid = uid.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--bounding-set=-all"]);
        command.args(["/usr/bin/python3", "-c", CONNECTS]).arg(&run);
        let log = world.folder().join(format!("connects-{number}.out"));
        floods.push(Process::start("connects", &mut command, &log)?);
    }
    let mut command = world.gateway_b.command("/usr/bin/python3");
    command.args(["-c", STRANGER, &Side::A.outer(Family::V4).to_string()]);
    let mut stranger = Process::start("stranger", &mut command, &world.folder().join("stranger.out"))?;
    for flood in &mut floods {
        ensure!(flood.wait(Duration::from_mins(1))?.success(), "a flood ended early: {}", flood.log());
    }
    ensure!(stranger.wait(Duration::from_mins(1))?.success(), "the stranger gave up: {}", stranger.log());
    let sent: u64 = stranger.log().trim().parse().context("the stranger counts")?;
    ensure!(sent > 1_000, "only {sent} datagrams");

    // A line for each kind and second at most, of three kinds and two daemons.
    let grown = octets_below(a.folder())? - before;
    ensure!(grown < 20_000, "the disk holds {grown} octets more after 5 s:\n{}", a.logs());
    ping(&world)
}
