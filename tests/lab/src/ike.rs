//! Matching IKE configurations for one of our gateways and for a peer.

use crate::gateway::Config;
use crate::world::{Family, Side};

/// One connection with one child between gateway a and gateway b.
#[derive(Clone, Debug)]
pub struct Connection {
    /// IKE proposal, as swanctl spells it.
    pub ike: &'static str,
    /// ESP proposal.
    pub esp: &'static str,
    /// Family of everything.
    pub family: Family,
    /// Forced UDP encapsulation.
    pub encap: bool,
    /// The peer may come from any address (it is behind a NAT).
    pub any_remote: bool,
    /// Selectors of a and b.
    pub selectors: [String; 2],
    /// More lines for our `[[connection]]`.
    pub ours: String,
    /// More lines for our child.
    pub our_child: String,
    /// More lines for the peer's connection.
    pub theirs: String,
    /// More lines for the peer's child.
    pub their_child: String,
}

/// The name of the connection and of its child, on both ends.
pub const NAME: &str = "media";
/// The pre-shared key of both ends.
pub const SECRET: &str = "correct horse battery staple";

impl Connection {
    /// AES-GCM, X25519 and the worlds' prefixes.
    pub fn new(ike: &'static str, esp: &'static str) -> Self {
        Self {
            ike,
            esp,
            family: Family::V4,
            encap: false,
            any_remote: false,
            selectors: [Side::A, Side::B].map(|side| side.prefix(Family::V4).to_owned()),
            ours: String::new(),
            our_child: String::new(),
            theirs: String::new(),
            their_child: String::new(),
        }
    }

    fn ends(&self, side: Side) -> [&str; 2] {
        let [a, b] = [self.selectors[0].as_str(), self.selectors[1].as_str()];
        if side == Side::A { [a, b] } else { [b, a] }
    }

    /// Our configuration on `side`; `start` is the child's `start_action`.
    pub fn pollux(&self, side: Side, start: &str) -> Config {
        let mut config = Config { secrets: format!("[psk]\n{NAME} = \"{SECRET}\"\n"), ..Config::default() };
        let remote = if self.any_remote {
            String::new()
        } else {
            format!("remote_addrs = \"{}\"\n", side.other().outer(self.family))
        };
        let list = |text: &str| -> String {
            let items: Vec<String> = text.split(',').map(|item| format!("\"{}\"", item.trim())).collect();
            format!("[{}]", items.join(", "))
        };
        let [local_ts, remote_ts] = self.ends(side);
        // One side leaves it to the kernel's routes, as most files do.
        let local = match side {
            Side::A => String::new(),
            Side::B => format!("local_addrs = \"{}\"\n", side.outer(self.family)),
        };
        config.table(&format!(
            "[[connection]]\nname = \"{NAME}\"\n{local}{remote}proposals = {}\npsk = \"{NAME}\"\nencap = {}\n{}\n\
             [connection.local]\nid = \"gateway-{}.example\"\n\n[connection.remote]\nid = \"gateway-{}.example\"\n\n\
             [connection.children.{NAME}]\nlocal_ts = {}\nremote_ts = {}\nesp_proposals = {}\nstart_action = \"{start}\"\n{}",
            list(self.ike),
            self.encap,
            self.ours,
            side.name(),
            side.other().name(),
            list(local_ts),
            list(remote_ts),
            list(self.esp),
            self.our_child,
        ));
        config
    }

    /// A swanctl.conf on `side`.
    pub fn swanctl(&self, side: Side) -> String {
        let remote =
            if self.any_remote { "%any".to_owned() } else { side.other().outer(self.family).to_string() };
        let [local_ts, remote_ts] = self.ends(side);
        format!(
            "connections {{ {NAME} {{
  version = 2
  local_addrs = {}
  remote_addrs = {remote}
  proposals = {}
  encap = {}
  {}
  local {{
    auth = psk
    id = gateway-{me}.example
  }}
  remote {{
    auth = psk
    id = gateway-{peer}.example
  }}
  children {{ {NAME} {{
    local_ts = {local_ts}
    remote_ts = {remote_ts}
    esp_proposals = {}
    {}
  }} }}
}} }}
secrets {{ ike-{NAME} {{
  id = gateway-{peer}.example
  secret = \"{SECRET}\"
}} }}
",
            side.outer(self.family),
            self.ike,
            if self.encap { "yes" } else { "no" },
            self.theirs,
            self.esp,
            self.their_child,
            me = side.name(),
            peer = side.other().name(),
        )
    }
}
