//! The run directory against those who are not root: the user that control runs as, taken over, and anybody.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::command::output;
use pollux_lab::gateway::Gateway;
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

fn sockets_are_for_root_and_control_alone(a: &Gateway, run: &str) -> Result<()> {
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

    // Connections without a word, as fast as they come.
    let before = a.logs().len();
    let flood = format!(
        "import socket\nfor n in range(2000):\n  s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n  \
         s.connect(\"{run}/attach.sock\")\n  s.close()"
    );
    ensure!(output(Command::new("python3").args(["-c", &flood]))?.status.success(), "the flood ended early");
    let grown = a.logs().len() - before;
    ensure!(grown < 10_000, "the logs grew by {grown} octets:\n{}", a.logs());
    Ok(())
}

#[test]
fn a_hostile_control_user_and_a_local_user_touch_nothing_of_root_s_and_flood_no_log() -> Result<()> {
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
    sockets_are_for_root_and_control_alone(&a, &run.to_string())?;

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
