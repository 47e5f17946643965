//! From the configuration file to what the IKE core wants to know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use pollux_abi::Reqid;
use pollux_config::{
    Child, ChildSelector, Config, Connection, DpdAction, Problem, Problems, Secrets, StartAction,
    UniquePolicy,
};
use pollux_ike::config::{
    Action, AddressRange, ChildConfig, EndpointConfig, Limits, Ports, PreSharedKey, Retransmit,
    SelectorConfig, Unique,
};
use pollux_ike::negotiate::Proposal;
use pollux_ike::{Identity, IdentityPattern};

use crate::policies::is_for_many;
use crate::reqids::ChildName;

/// The core's configuration. What the file's own check cannot see is a mistake of the file, too.
pub(crate) fn config(
    config: &Config,
    secrets: &Secrets,
    reqids: &BTreeMap<ChildName, Reqid>,
) -> Result<EndpointConfig, Problems> {
    let mut problems = Vec::new();
    let connections = config
        .connections
        .iter()
        .map(|one| Arc::new(connection(config, one, reqids, &mut problems)))
        .collect();
    let control = &config.control;
    let endpoint = EndpointConfig {
        connections,
        secrets: shared_keys(config, secrets),
        limits: Limits {
            cookie_threshold: control.cookie_threshold,
            half_open_max: control.half_open_max,
            half_open_per_source: control.half_open_per_source,
            ike_sas_max: control.ike_sa_max,
            ..Limits::default()
        },
        retransmit: Retransmit {
            first: control.retransmit_timeout,
            tries: control.retransmit_tries,
            ..Retransmit::default()
        },
        nat_keepalive: control.keepalive,
        ports: Ports { ike: control.ike_port, nat_t: control.natt_port },
        log_keys: control.key_log.is_some(),
    };
    if problems.is_empty() { Ok(endpoint) } else { Err(Problems(problems)) }
}

fn connection(
    config: &Config,
    connection: &Connection,
    reqids: &BTreeMap<ChildName, Reqid>,
    problems: &mut Vec<Problem>,
) -> pollux_ike::config::Connection {
    let name: Arc<str> = connection.name.as_str().into();
    let mut wrong = |key: &str, reason: String, fix: &str| {
        problems.push(Problem {
            file: config.file.clone(),
            line: connection.line,
            key: format!("connection.{}.{key}", connection.name),
            reason,
            fix: fix.to_owned(),
        });
    };
    let (local_id, remote_id) = identities(connection, &mut wrong);
    let proposals = proposals(
        &connection.proposals,
        Proposal::default_ike,
        |text| Proposal::parse_ike(text).map_err(|error| error.to_string()),
        |reason| wrong("proposals", reason, "write for example \"aes256gcm16-prfsha384-ecp384\""),
    );
    let many = is_for_many(connection);
    let children = connection
        .children
        .iter()
        .map(|one| {
            let key = (Arc::clone(&name), one.name.as_str().into());
            let reqid = reqids.get(&key).copied().filter(|_| !many);
            let proposals = self::proposals(
                &one.esp_proposals,
                Proposal::default_esp,
                |text| Proposal::parse_esp(text).map_err(|error| error.to_string()),
                |reason| {
                    let key = format!("children.{}.esp_proposals", one.name);
                    wrong(&key, reason, "write for example \"aes256gcm16-ecp384\"");
                },
            );
            Arc::new(child(one, reqid, proposals, config.control.overlap))
        })
        .collect();
    pollux_ike::config::Connection {
        name: Arc::clone(&name),
        local_addrs: connection.local_addrs.iter().copied().map(AddressRange::host).collect(),
        remote_addrs: connection.remote_addrs.iter().map(range).collect(),
        remote_port: connection.remote_port,
        local_id,
        remote_id,
        proposals,
        encap: connection.encap,
        dpd_delay: connection.dpd_delay,
        rekey_time: connection.rekey_time,
        over_time: connection.over_time,
        rand_time: connection.rand_time,
        keyingtries: connection.keyingtries,
        unique: match connection.unique {
            UniquePolicy::No => Unique::No,
            UniquePolicy::Never => Unique::Never,
            UniquePolicy::Replace => Unique::Replace,
        },
        children,
    }
}

/// Our identity and those that the peer may have.
fn identities(
    connection: &Connection,
    mut wrong: impl FnMut(&str, String, &str),
) -> (Option<Identity>, IdentityPattern) {
    let local_id = connection.local.id.as_deref().and_then(|id| {
        let parsed = Identity::parse(id);
        if parsed.is_none() {
            wrong("local.id", format!("`{id}` is no identity"), "write a name, an address or user@name");
        }
        parsed
    });
    let remote = connection.remote.id.as_deref().unwrap_or("%any");
    let remote_id = IdentityPattern::parse(remote).unwrap_or_else(|| {
        wrong(
            "remote.id",
            format!("`{remote}` is no identity"),
            "write a name, an address, user@name or %any",
        );
        IdentityPattern::Any
    });
    (local_id, remote_id)
}

fn proposals(
    written: &[String],
    default: impl Fn() -> Vec<Proposal>,
    parse: impl Fn(&str) -> Result<Proposal, String>,
    mut wrong: impl FnMut(String),
) -> Vec<Proposal> {
    if written.is_empty() {
        return default();
    }
    let mut list = Vec::new();
    for text in written {
        match text.as_str() {
            "default" => list.extend(default()),
            text => match parse(text) {
                Ok(proposal) => list.push(proposal),
                Err(reason) => wrong(reason),
            },
        }
    }
    list
}

fn child(child: &Child, reqid: Option<Reqid>, proposals: Vec<Proposal>, overlap: Duration) -> ChildConfig {
    let limits = &child.lifetimes;
    ChildConfig {
        name: child.name.as_str().into(),
        local_ts: child.local_ts.iter().map(selector).collect(),
        remote_ts: child.remote_ts.iter().map(selector).collect(),
        proposals,
        reqid,
        rekey_time: child.rekey_time,
        life_time: child.life_time,
        rand_time: child.rand_time,
        rekey_bytes: limits.soft_bytes,
        life_bytes: limits.hard_bytes,
        rand_bytes: limits.hard_bytes.saturating_sub(limits.soft_bytes),
        rekey_packets: limits.soft_packets,
        life_packets: limits.hard_packets,
        rand_packets: limits.hard_packets.saturating_sub(limits.soft_packets),
        overlap,
        start_action: action(child.start_action),
        close_action: action(child.close_action),
        dpd_action: match child.dpd_action {
            DpdAction::Clear => Action::None,
            DpdAction::Trap => Action::Trap,
            DpdAction::Restart => Action::Start,
        },
    }
}

fn action(action: StartAction) -> Action {
    match action {
        StartAction::None => Action::None,
        StartAction::Trap => Action::Trap,
        StartAction::Start => Action::Start,
    }
}

fn selector(selector: &ChildSelector) -> SelectorConfig {
    match selector {
        ChildSelector::Fixed(selector) => SelectorConfig::Fixed(*selector),
        ChildSelector::Dynamic => SelectorConfig::Dynamic,
    }
}

fn range(net: &IpNet) -> AddressRange {
    // `broadcast` is the last address, also in IPv6.
    AddressRange { first: net.network(), last: net.broadcast() }
}

/// A key that a connection names is that connection's alone; keys with `ids` are those identities'.
fn shared_keys(config: &Config, secrets: &Secrets) -> Vec<PreSharedKey> {
    let mut list = Vec::new();
    for connection in &config.connections {
        let Some(psk) = connection.psk.as_deref().and_then(|name| secrets.psk(name)) else { continue };
        let connection = Some(connection.name.as_str().into());
        list.push(PreSharedKey { connection, owners: Vec::new(), key: Arc::new(psk.secret.clone()) });
    }
    for (_, psk) in secrets.psks().filter(|(_, psk)| !psk.ids.is_empty()) {
        // The file's check takes no other ids; a key without its owners would be anyone's.
        let Some(owners) = psk.ids.iter().map(|id| IdentityPattern::parse(id)).collect() else { continue };
        list.push(PreSharedKey { connection: None, owners, key: Arc::new(psk.secret.clone()) });
    }
    list
}

#[cfg(test)]
mod tests {
    use pollux_abi::EspSuite;
    use pollux_ike::crypto::{Encryption, Integrity, KeMethod, Prf};

    use super::*;
    use crate::reqids::Reqids;
    use crate::table::Table;

    fn reqids(file: &Config) -> BTreeMap<ChildName, Reqid> {
        Reqids::default().of(file, &Table::new())
    }

    fn load(proposals: &str, esp: &str) -> Result<EndpointConfig, Problems> {
        let text = format!(
            "[dataplane]\nwan = \"w\"\nlan = \"l\"\n[[connection]]\nname = \"c\"\nproposals = \"{proposals}\"\n\
             [connection.children.n]\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\nesp_proposals = \"{esp}\"\n"
        );
        let file = pollux_config::parse(std::path::Path::new("test.toml"), &text)?;
        config(&file, &Secrets::default(), &reqids(&file))
    }

    /// The file's check and the core's parser each have a list of algorithms: this holds them together.
    #[test]
    fn every_algorithm_of_the_core_can_be_written_in_the_file() {
        for encryption in Encryption::ALL {
            let rest = if encryption.is_combined() { "prfsha256-x25519" } else { "sha256-x25519" };
            load(&format!("{encryption}-{rest}"), "default").expect("accepted by both");
        }
        for integrity in Integrity::ALL {
            load(&format!("aes128-{integrity}-x25519"), "default").expect("accepted by both");
        }
        for prf in Prf::ALL {
            load(&format!("aes128gcm16-{prf}-x25519"), "default").expect("accepted by both");
        }
        for method in KeMethod::ALL {
            let config =
                load(&format!("aes128gcm16-prfsha256-{method}"), &format!("aes128gcm16-{method}-esn"));
            config.expect("accepted by both");
        }
        for suite in EspSuite::ALL {
            load("default", suite.name()).expect("accepted by both");
        }
    }

    #[test]
    fn a_connection_for_one_peer_has_a_reqid_and_one_for_many_has_none() {
        let reqid = |text: &str| {
            let text = format!(
                "[dataplane]\nwan = \"w\"\nlan = \"l\"\n[[connection]]\nname = \"c\"\n{text}\n\
                 [connection.children.n]\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\n"
            );
            let file = pollux_config::parse(std::path::Path::new("test.toml"), &text).expect("right");
            let reqids = reqids(&file);
            let config = config(&file, &Secrets::default(), &reqids).expect("right");
            config.connections[0].children[0].reqid
        };
        assert!(reqid("remote_addrs = \"192.0.2.2\"").is_some());
        assert!(reqid("remote.id = \"gw-b.example\"").is_some());
        assert!(reqid("remote.id = \"*.phones.example\"").is_none());
        assert!(reqid("remote_addrs = \"192.0.2.0/24\"").is_none());
        // The same names have the same reqid in every life of control.
        assert_eq!(reqid("remote_addrs = \"192.0.2.2\""), reqid("remote_addrs = \"192.0.2.3\""));
    }
}
