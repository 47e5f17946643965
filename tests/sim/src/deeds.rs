//! What an operator, a power cut, a NAT or a stranger does.

use core::net::SocketAddr;
use core::time::Duration;

use pollux_ike::endpoint::{Command, Target};

use crate::network::addresses;
use crate::scenario::{CHILDREN, FaultProfile, Revision};
use crate::world::{Happening, World};

/// One thing that is done to a gateway or to the network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Initiate,
    RekeyChild,
    RekeyIke,
    TerminateChild,
    TerminateIke,
    Reload(Revision),
    RestartControl,
    RestartAll,
    DataPlaneDies,
    DataPlaneReturns,
    Rebind,
    Cut,
    Repair,
    Noise,
}

/// After a NAT has forgotten its mappings, the next packet from behind it shows the new ones.
const REBOUND: Duration = Duration::from_secs(3);

impl World {
    /// Draws what the profile allows.
    pub(crate) fn deed(&mut self) -> Deed {
        if self.params.profile != FaultProfile::Chaos {
            return match self.rng.below(20) {
                0..=11 => Deed::RekeyChild,
                12..=16 => Deed::RekeyIke,
                17 | 18 => Deed::Reload(Revision::First),
                _ => Deed::Rebind,
            };
        }
        match self.rng.below(20) {
            0 | 1 => Deed::Initiate,
            2..=5 => Deed::RekeyChild,
            6 | 7 => Deed::RekeyIke,
            8 => Deed::TerminateChild,
            9 => Deed::TerminateIke,
            10 => Deed::RestartControl,
            11 => Deed::RestartAll,
            12 => Deed::DataPlaneDies,
            13 | 14 => Deed::Cut,
            15 => Deed::Reload(Revision::First),
            16 => Deed::Reload(Revision::Changed),
            17 => Deed::Reload(Revision::ChildLess),
            18 => Deed::Rebind,
            _ => Deed::Noise,
        }
    }

    /// Does it.
    pub(crate) fn act(&mut self, end: usize, deed: Deed) -> Result<(), String> {
        let target = |child: Option<&str>| Target::Connection {
            connection: "peer".into(),
            child: child.map(Into::into),
        };
        match deed {
            Deed::Initiate => {
                let end = if self.params.initiates(end) { end } else { 0 };
                self.command(end, Command::Initiate { connection: "peer".into(), child: None })
            }
            Deed::RekeyChild => self.command(end, Command::Rekey(target(Some(CHILDREN[0])))),
            Deed::RekeyIke => self.command(end, Command::Rekey(target(None))),
            Deed::TerminateChild => {
                self.watch.closed(Some(CHILDREN[0]), self.now);
                self.command(end, Command::Terminate(target(Some(CHILDREN[0]))))
            }
            Deed::TerminateIke => {
                self.watch.closed(None, self.now);
                self.command(end, Command::Terminate(target(None)))
            }
            Deed::Reload(revision) => self.reload(end, revision),
            Deed::RestartControl | Deed::RestartAll => self.restart(end, matches!(deed, Deed::RestartAll)),
            Deed::DataPlaneDies => {
                self.gateways[end].data_plane.die();
                let wait = Duration::from_millis(self.rng.between(10, 20_000));
                self.watch.excuses.fault(self.now + wait);
                self.at(wait, Happening::Do { end, deed: Deed::DataPlaneReturns });
                self.command(end, Command::DataPlaneDown)
            }
            Deed::DataPlaneReturns => {
                if self.gateways[end].data_plane.up {
                    return Ok(());
                }
                self.gateways[end].data_plane.up = true;
                self.command(end, Command::DataPlaneUp { live: Vec::new() })
            }
            Deed::Rebind => {
                if self.params.nat {
                    self.network.rebind();
                    self.watch.excuses.cause(self.now + REBOUND);
                }
                Ok(())
            }
            Deed::Cut => {
                self.network.faults.cut = true;
                let wait = Duration::from_millis(self.rng.between(500, 60_000));
                self.watch.excuses.fault(self.now + wait);
                self.at(wait, Happening::Do { end, deed: Deed::Repair });
                Ok(())
            }
            Deed::Repair => {
                self.network.faults.cut = false;
                Ok(())
            }
            Deed::Noise => self.noise(end),
        }
    }

    /// The configuration is read again. Where nothing has changed, nothing happens.
    fn reload(&mut self, end: usize, revision: Revision) -> Result<(), String> {
        let config = self.params.config(end, revision);
        match revision {
            _ if self.gateways[end].revision == revision => {}
            Revision::ChildLess => self.watch.closed(Some(CHILDREN[1]), self.now),
            Revision::First | Revision::Changed => self.watch.excuses.fault(self.now),
        }
        let config = self.gateways[end].configure(config, revision);
        self.command(end, Command::Reload(config))
    }

    fn restart(&mut self, end: usize, all: bool) -> Result<(), String> {
        self.watch.excuses.fault(self.now);
        let gateway = &mut self.gateways[end];
        if all {
            gateway.data_plane.die();
            gateway.data_plane.up = true;
        }
        gateway.restart_control();
        if !gateway.data_plane.up {
            return Ok(());
        }
        let live = gateway.data_plane.live(self.now);
        self.command(end, Command::DataPlaneUp { live })
    }

    /// A stranger sends octets that are nothing at all.
    fn noise(&mut self, end: usize) -> Result<(), String> {
        let ports = [500, 4500];
        for _ in 0..20 {
            let len = usize::try_from(self.rng.below(200)).unwrap_or(0);
            let mut bytes = vec![0; len];
            pollux_ike::crypto::Rng::fill(&mut self.rng, &mut bytes);
            let port = ports[usize::try_from(self.rng.below(2)).unwrap_or(0)];
            let local = SocketAddr::new(addresses(self.params.v6)[end], port);
            let remote = SocketAddr::new([192, 0, 2, 66].into(), 4500);
            let gateway = &mut self.gateways[end];
            gateway.endpoint.handle_datagram(self.now, local, remote, &bytes, &mut gateway.rng);
            self.drain(end)?;
        }
        Ok(())
    }
}
