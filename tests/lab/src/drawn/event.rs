//! Drawn events: what happens to a gateway while packets are on their way.

use pollux_pair::Seeded;

use super::policy::pick;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing.
    Calm,
    /// A reload to another drawn configuration.
    Reload,
    /// kill -9 of the data plane, or its start.
    DataPlane,
    /// kill -9 of control, or its start.
    Control,
    /// `pollux down`, then `pollux guard`, then a start.
    DownAndUp,
    /// kill -9 of `pollux down` half-way, then a start.
    DownHalfWay,
    /// Our rules are deleted.
    Rules,
    /// Our routing table is flushed.
    Routes,
    /// `pollux0` goes down or is deleted.
    HostPort,
    /// A masquerading nftables rule appears or goes, or the whole ruleset is flushed.
    Nat,
    /// An uplink goes down and up.
    Link,
    /// The default route moves to the other uplink or back.
    Uplink,
    /// The second uplink is moved to another network namespace and back.
    Move,
    /// Addresses come and go.
    Addresses,
}

impl Event {
    const ALL: [Self; 14] = [
        Self::Calm,
        Self::Reload,
        Self::DataPlane,
        Self::Control,
        Self::DownAndUp,
        Self::DownHalfWay,
        Self::Rules,
        Self::Routes,
        Self::HostPort,
        Self::Nat,
        Self::Link,
        Self::Uplink,
        Self::Move,
        Self::Addresses,
    ];

    /// One of them; reloads and deaths more often.
    pub fn draw(chance: &mut Seeded) -> Self {
        match chance.below(4) {
            0 => pick(chance, &[Self::Reload, Self::Reload, Self::DataPlane]),
            _ => pick(chance, &Self::ALL),
        }
    }

    /// For the table of what was covered.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Reload => "reload",
            Self::DataPlane => "data plane killed or started",
            Self::Control => "control killed or started",
            Self::DownAndUp => "down, guard, up",
            Self::DownHalfWay => "down killed half-way",
            Self::Rules => "rules deleted",
            Self::Routes => "routes flushed",
            Self::HostPort => "pollux0 down or deleted",
            Self::Nat => "nftables: masquerade or flush",
            Self::Link => "a link down and up",
            Self::Uplink => "default route moved",
            Self::Move => "an uplink moved to another namespace and back",
            Self::Addresses => "addresses changed",
        }
    }

    /// Whether a masquerading rule is in force after so many turns of [`Self::Nat`].
    pub const fn masquerades(turn: u64) -> bool {
        turn % 3 != 2 && turn % 2 == 1
    }

    /// The part of it that happens to the kernel, as a shell script in the gateway's namespace: the same in both worlds.
    /// `turn` lets it alternate; `elsewhere` is another namespace.
    pub fn script(self, turn: u64, elsewhere: &str) -> Option<String> {
        let odd = turn % 2 == 1;
        let script = match self {
            Self::Nat if turn % 3 == 2 => "nft flush ruleset".to_owned(),
            Self::Nat if Self::masquerades(turn) => "nft add table inet drawn
                nft 'add chain inet drawn out { type nat hook postrouting priority -190; }'
                nft 'add rule inet drawn out oifname { wan0, up1 } masquerade'"
                .to_owned(),
            Self::Nat => "nft delete table inet drawn 2>/dev/null || true".to_owned(),
            Self::Link => {
                let device = ["wan0", "up1", "lan0", "third0"][usize::try_from(turn % 4).unwrap_or_default()];
                format!("ip link set {device} down; sleep 0.05; ip link set {device} up")
            }
            Self::Uplink if odd => "ip route replace default via 203.0.113.1 dev up1
                ip -6 route replace default via 2001:db8:c::1 dev up1
                ip route replace 10.2.0.0/16 via 203.0.113.1 dev up1"
                .to_owned(),
            Self::Uplink => "ip route del 10.2.0.0/16 dev up1 2>/dev/null || true
                ip route replace default via 192.0.2.1 dev wan0
                ip -6 route replace default via 2001:db8:a::1 dev wan0"
                .to_owned(),
            Self::Move => {
                format!(
                    "ip link set up1 netns {elsewhere}; ip -n {elsewhere} link set up1 netns $(ip netns identify)"
                )
            }
            Self::Addresses if odd => "ip addr add 10.1.77.1/24 dev lan0
                ip addr add 192.0.2.99/24 dev wan0
                ip -6 addr add fd01:0:0:77::1/64 dev lan0 nodad"
                .to_owned(),
            Self::Addresses => "ip addr del 10.1.77.1/24 dev lan0 2>/dev/null || true
                ip addr del 192.0.2.99/24 dev wan0 2>/dev/null || true
                ip -6 addr del fd01:0:0:77::1/64 dev lan0 2>/dev/null || true"
                .to_owned(),
            _ => return None,
        };
        Some(script)
    }

    /// The part that happens to what is the gateway's alone.
    pub fn sabotage(self, turn: u64) -> Option<&'static str> {
        match self {
            Self::Rules => Some(
                "for family in -4 -6; do for pref in $(seq 5200 5214); do
                     while ip $family rule del pref $pref 2>/dev/null; do :; done
                 done; done",
            ),
            Self::Routes => Some(
                "for table in $(seq 20560 20580); do ip route flush table $table; ip -6 route flush table $table; done 2>/dev/null || true",
            ),
            Self::HostPort if turn % 2 == 1 => Some("ip link set pollux0 down"),
            Self::HostPort => Some("ip link del pollux0 2>/dev/null || true"),
            _ => None,
        }
    }
}
