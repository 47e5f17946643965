//! `pollux-dataplane guard`: closes what the configuration protects, and ends. For the time before the network is up.

use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use pollux_config::Config;
use pollux_ebpf::{Capacity, Guard, Role, Steering, bpffs, is_narrow};
use pollux_shm::{RunDir, say};

use crate::device::xdp_mode;
use crate::guard_at_exit;
use crate::namespace;
use crate::netlink::Rtnl;

/// Puts the guard in force on every interface that there is, and the XDP program on the ports among them. The pins stay
/// when this returns; a data plane takes them over, and `pollux down` removes them.
///
/// The addresses of the gateway are not known yet. Where a remote side is too wide to name anybody, the XDP program would
/// take a host's packet to the gateway itself for one to the peer and lock the operator out: then it is left to the data
/// plane. A data plane that runs already holds all of this, and is left alone.
pub fn close(config: &Config) -> Result<()> {
    if UnixStream::connect(config.paths.dataplane_socket()).is_ok() {
        say!("guard: the data plane runs and holds it already");
        return Ok(());
    }
    RunDir::ensure(&config.paths.run_dir, config.run_dir_mode(), None).context("making the run directory")?;
    let pin_dir = bpffs::mount_own(&config.paths.run_dir)?;
    if let Some(netns) = &config.dataplane.netns {
        namespace::enter(netns)?;
    }
    let mut rtnl = Rtnl::open()?;
    let links = rtnl.links()?;
    let mut steering = Steering::open(&pin_dir, Capacity::default())?;
    let known = steering.has_local_addrs()?;
    let pairs = guard_at_exit::hold(config, &mut steering)?;
    let mut guard = Guard::open(&steering)?;
    guard.set_addresses_known(known)?;
    guard.attach_netfilter()?;
    guard.attach_egress(&guard_at_exit::exits(&links))?;
    say!("guard: {} pairs, {}", pairs.len(), guard_at_exit::report(&guard).effective);
    let names_nobody = pairs.iter().any(|(_, remote)| !is_narrow(remote));
    let wan = config.dataplane.wan.iter().map(|name| (name, Role::Wan));
    let lan = config.dataplane.lan.iter().map(|name| (name, Role::Lan));
    for (name, role) in wan.chain(lan) {
        let Some(link) = links.iter().find(|link| link.is_named(name)) else {
            say!("{name}: not there yet; the data plane attaches the XDP program");
            continue;
        };
        if names_nobody && !known {
            say!("{name}: a remote selector of everything; the data plane attaches the XDP program");
            continue;
        }
        let attached = steering.attach(link.index, &link.name, role, xdp_mode(config.dataplane.xdp))?;
        steering.set_mac(link.index, link.mac.0)?;
        say!("{name}: XDP program in {} mode", attached.mode);
    }
    Ok(())
}
