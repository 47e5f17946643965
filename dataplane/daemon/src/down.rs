//! Taking everything away that outlives the data plane on purpose.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pollux_config::Places;
use pollux_ebpf::{Steering, bpffs};

use crate::host_port::HostPort;
use crate::locks::Locks;
use crate::namespace;
use crate::netlink::Rtnl;

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a running data plane may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Stops a running data plane, then removes XDP program, kernel routes, `pollux0` and bpffs. From then on
/// nothing is protected, and nothing of ours is left.
pub fn down(places: &Places) -> Result<()> {
    stop(&places.paths.dataplane_socket())?;
    let run_dir = &places.paths.run_dir;
    let pins = run_dir.join("bpf");
    // The device first, then the routes: in between, what is protected is unreachable.
    if let Some(netns) = &places.netns {
        // The mount is looked for before the namespace changes; `setns` leaves mounts alone.
        match namespace::enter(netns) {
            Ok(()) => remove_network()?,
            Err(error) => tracing::warn!(%error, "namespace-gone"),
        }
    } else {
        remove_network()?;
    }
    if bpffs::is_bpffs(&pins).unwrap_or(false) {
        Steering::remove_all(&pins).context("removing the XDP program")?;
    }
    bpffs::unmount(run_dir).context("unmounting the bpffs")
}

fn remove_network() -> Result<()> {
    let mut rtnl = Rtnl::open()?;
    HostPort::remove(&mut rtnl)?;
    Locks::remove_all(&mut rtnl)?;
    Ok(())
}

fn stop(socket: &Path) -> Result<()> {
    let Ok(mut stream) = UnixStream::connect(socket) else { return Ok(()) };
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(b"{\"op\":\"stop\"}\n").context("asking the data plane to stop")?;
    let mut reply = String::new();
    // It may be gone before it has answered.
    if let Err(error) = BufReader::new(&stream).read_line(&mut reply)
        && error.kind() == std::io::ErrorKind::WouldBlock
    {
        bail!(
            "the data plane does not answer (waited {} s): it is stopped or hangs; kill it, then run this again",
            ANSWER.as_secs()
        );
    }
    let asked = Instant::now();
    while UnixStream::connect(socket).is_ok() {
        if asked.elapsed() > STOP_PATIENCE {
            bail!("the data plane does not stop; kill it, then run this again");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
