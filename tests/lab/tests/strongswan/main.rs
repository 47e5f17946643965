//! Pollux as gateway a, strongSwan as gateway b: in both roles, raw and in UDP, with every refusal seen on the wire.

mod keys;
mod matrix;
mod nat;
mod refusals;
mod rekey;
mod restart;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::capture::Capture;
use pollux_lab::flow::{End, Flow, Outcome};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::oracle::tshark::{self, Keys};
use pollux_lab::peer::strongswan::{Setup, Swan, Version};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Side, World};

/// Who says IKE_SA_INIT first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Initiator {
    Pollux,
    Swan,
}

/// Pollux and strongSwan with one connection up between them.
struct Pair {
    a: Gateway,
    swan: Swan,
    world: World,
    connection: Connection,
}

impl Pair {
    /// Starts both, and nothing yet between them.
    fn start(name: &str, version: Version, connection: &Connection) -> Result<Self> {
        Self::start_with(name, version, connection, "")
    }

    /// As [`Self::start`], with more options for charon.
    fn start_with(name: &str, version: Version, connection: &Connection, options: &str) -> Result<Self> {
        let world = World::new(name)?;
        let setup = Setup {
            name: "swan",
            version,
            raw_esp: !connection.encap && version == Version::Trixie,
            options,
            swanctl: &connection.swanctl(Side::B),
        };
        let swan = Swan::start(&world.gateway_b, world.folder(), &setup)?;
        let a = Gateway::start(&world, Side::A, &connection.pollux(Side::A, "none"))?;
        Ok(Self { a, swan, world, connection: connection.clone() })
    }

    /// Starts both and brings the tunnel up.
    fn up(name: &str, version: Version, connection: &Connection, initiator: Initiator) -> Result<Self> {
        let pair = Self::start(name, version, connection)?;
        pair.initiate(initiator).with_context(|| pair.story())?;
        Ok(pair)
    }

    fn initiate(&self, initiator: Initiator) -> Result<()> {
        match initiator {
            Initiator::Pollux => self.a.cli(&format!("initiate --child {NAME}"))?,
            Initiator::Swan => self.swan.swanctl(&format!("--initiate --child {NAME} --timeout 15"))?,
        };
        self.wait_up()
    }

    /// Waits until a ping gets through.
    fn wait_up(&self) -> Result<()> {
        let target = Side::B.host(self.connection.family);
        wait_for("a ping through the tunnel", Duration::from_secs(10), || {
            Ok(self.world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
        })
    }

    /// A flow of 500 datagrams a second from one side to the other.
    fn flow(&self, from: Side, seconds: f64) -> Result<Flow> {
        let end =
            |side: Side| End { netns: self.world.host(side), address: side.host(self.connection.family) };
        Flow::start(&self.world, end(from), end(from.other()), 500, seconds)
    }

    /// Ping, UDP both ways, TCP both ways: nothing lost.
    fn check_traffic(&self) -> Result<()> {
        self.wait_up().with_context(|| self.story())?;
        for from in [Side::A, Side::B] {
            let outcome = self.flow(from, 1.0)?.finish()?;
            self.whole(outcome)?;
            self.tcp(from).with_context(|| self.story())?;
        }
        self.a.check_ledger()
    }

    fn whole(&self, outcome: Outcome) -> Result<()> {
        ensure!(
            outcome.lost() == 0 && outcome.duplicates == 0 && outcome.received > 100,
            "{outcome:?}\n{}",
            self.story()
        );
        Ok(())
    }

    /// Half a megabyte by TCP, compared at the far end.
    fn tcp(&self, from: Side) -> Result<()> {
        let (source, sink) = (self.world.host(from), self.world.host(from.other()));
        let target = from.other().host(self.connection.family);
        let server = format!(
            "import socket,hashlib\nf=socket.AF_INET6 if ':' in '{target}' else socket.AF_INET\n\
             s=socket.create_server(('{target}',7000),family=f); print('ready',flush=True)\n\
             s.settimeout(20); c,_=s.accept(); c.settimeout(20); h=hashlib.sha256(); n=0\n\
             while d:=c.recv(65536): h.update(d); n+=len(d)\n\
             c.sendall(h.digest()); print(n)"
        );
        let client = format!(
            "import socket,hashlib\ns=socket.create_connection(('{target}',7000),10); d=bytes(i*7&255 for i in range(1<<19))\n\
             s.settimeout(20); s.sendall(d); s.shutdown(socket.SHUT_WR); assert s.recv(64)==hashlib.sha256(d).digest()"
        );
        let folder = self.world.folder();
        std::fs::write(folder.join("tcp-server.py"), server)?;
        std::fs::write(folder.join("tcp-client.py"), client)?;
        let mut command = sink.command("/usr/bin/python3");
        command.arg(folder.join("tcp-server.py"));
        let mut process =
            pollux_lab::process::Process::start("tcp server", &mut command, &folder.join("tcp-server.log"))?;
        process.wait_for_log("ready", Duration::from_secs(5))?;
        source.sh(&format!("/usr/bin/python3 {}", folder.join("tcp-client.py").display()))?;
        ensure!(process.wait(Duration::from_secs(10))?.success(), "{}", process.tail());
        Ok(())
    }

    /// What both ends say, for a failure's message.
    fn story(&self) -> String {
        let log = self.swan.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "{}\n{}\nstrongSwan:\n{}\ndrops: {:?}",
            self.a.cli("list-sas").unwrap_or_default(),
            self.a.logs(),
            lines[lines.len().saturating_sub(40)..].join("\n"),
            self.a.drops()
        )
    }
}

/// What goes over the wire between the gateways, and our keys for it.
struct Wire {
    capture: Capture,
    key_log: PathBuf,
}

impl Wire {
    /// Gives our gateway this configuration with a key log, and starts to capture.
    fn tap(pair: &Pair, config: &Config) -> Result<Self> {
        let key_log = pair.a.folder().join("keys.log");
        let mut config = config.clone();
        config.set_control("key_log", &format!("\"{}\"", key_log.display()));
        pair.a.configure(&config)?;
        pair.a.reload()?;
        let capture = Capture::start(&pair.world.internet, "a0", pair.world.folder(), "wire")?;
        Ok(Self { capture, key_log })
    }

    /// Ends the capture.
    fn finish(self) -> Result<(PathBuf, Keys)> {
        let file = self.capture.file().to_owned();
        self.capture.stop()?;
        // A handshake that is refused before there are keys logs none.
        let keys = if self.key_log.exists() { Keys::of_log(&self.key_log)? } else { Keys::default() };
        Ok((file, keys))
    }

    /// Ends the capture: the notifies that came from `source`, by their numbers.
    fn notifies(self, source: IpAddr) -> Result<Vec<String>> {
        let (file, keys) = self.finish()?;
        let filter = format!("isakmp && ip.src == {source}");
        let rows = tshark::fields(&file, &keys, &[], &filter, &["isakmp.notify.msgtype"])?;
        Ok(rows.iter().flatten().flat_map(|types| types.split(',')).map(ToOwned::to_owned).collect())
    }
}
