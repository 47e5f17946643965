//! Reqids of the children: from the file, or given by us from 1 up, and then kept.
//!
//! What is installed goes on through every reload and every restart of control, and its policies find it by its reqid
//! alone. A child therefore keeps the number that it once had, whatever comes before it in the file. The table of them
//! lies in our folder of the run directory, which lives no longer than the data plane can: a new boot counts anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use pollux_abi::{Reqid, SaId};
use pollux_config::{Action, Config};
use serde::{Deserialize, Serialize};

use crate::table::{SaEntry, State, Table};

/// The table's name in our folder.
pub(crate) const FILE: &str = "reqids";

/// A child by its two names: the connection's and its own.
pub(crate) type ChildName = (Arc<str>, Arc<str>);

/// Numbers of children.
type Numbers = BTreeMap<ChildName, Reqid>;

/// One child's line of the table.
#[derive(Serialize, Deserialize)]
struct Row {
    connection: String,
    child: String,
    reqid: u32,
}

/// Every child's reqid.
#[derive(Debug, Default)]
pub(crate) struct Reqids {
    /// Of the children of the configuration.
    children: Numbers,
    /// What the table says, and so what the data plane's SAs of an earlier life are: also of children that the
    /// configuration has no more.
    kept: Numbers,
    file: Option<File>,
}

impl Reqids {
    /// Reads the table. One that cannot be read is as good as none: no SA of an earlier life is then known to be of
    /// any child, and those in the way go ([`Self::strangers`]).
    pub(crate) fn load(mut file: File, config: &Config) -> Self {
        let mut text = String::new();
        let kept = match file.read_to_string(&mut text) {
            Ok(_) => parse(&text).unwrap_or_else(|| {
                tracing::warn!(
                    event = "reqids-lost",
                    "the table of reqids is damaged; children are numbered anew"
                );
                Numbers::new()
            }),
            Err(error) => {
                tracing::warn!(event = "reqids-lost", "the table of reqids cannot be read: {error}");
                Numbers::new()
            }
        };
        let children = assign(config, &kept, &BTreeSet::new());
        Self { children, kept, file: Some(file) }
    }

    /// Those of the configuration's children.
    pub(crate) const fn children(&self) -> &Numbers {
        &self.children
    }

    /// What the children of another configuration would have, while the data plane has what `table` says.
    pub(crate) fn of(&self, config: &Config, table: &Table) -> Numbers {
        let known =
            self.kept.iter().chain(&self.children).map(|(name, &reqid)| (name.clone(), reqid)).collect();
        assign(config, &known, &reqids_of(table))
    }

    /// A new configuration is in force.
    pub(crate) fn adopt(&mut self, children: Numbers) {
        self.children = children;
    }

    /// Writes the table where it has changed: before anything with a new number can be installed. Numbers of children
    /// that the configuration has no more are kept while the data plane has SAs with them.
    pub(crate) fn keep(&mut self, table: &Table) -> io::Result<()> {
        let in_use = reqids_of(table);
        let given: BTreeSet<Reqid> = self.children.values().copied().collect();
        let gone = |(name, reqid): &(&ChildName, &Reqid)| {
            !self.children.contains_key(*name) && in_use.contains(reqid) && !given.contains(reqid)
        };
        let kept: Numbers = self
            .kept
            .iter()
            .filter(gone)
            .chain(&self.children)
            .map(|(name, &reqid)| (name.clone(), reqid))
            .collect();
        if kept == self.kept {
            return Ok(());
        }
        if let Some(file) = &mut self.file
            && let Err(error) = write(file, &kept)
        {
            // What was there has had room.
            let _ = write(file, &self.kept);
            return Err(error);
        }
        self.kept = kept;
        Ok(())
    }

    /// The children by the numbers that the SAs of an earlier life have.
    pub(crate) fn names(&self) -> HashMap<Reqid, String> {
        self.kept
            .iter()
            .map(|((connection, child), &reqid)| (reqid, format!("{connection}/{child}")))
            .collect()
    }

    /// Negotiated SAs with the reqid of a child, or of manual SAs, that they are not of: the file has given the number
    /// to somebody else, or nobody knows whose they are. The policies of one would find the SAs of the other.
    pub(crate) fn strangers(&self, config: &Config, table: &Table) -> Vec<SaId> {
        let manual = of_manual(config);
        let owners: HashMap<Reqid, String> = self
            .children
            .iter()
            .map(|((connection, child), &reqid)| (reqid, format!("{connection}/{child}")))
            .collect();
        let is_stranger = |entry: &SaEntry| {
            let reqid = Reqid(entry.row.reqid);
            let is_negotiated = !entry.is_manual() && !reqid.is_of_peer() && entry.state != State::Removing;
            let owner = owners.get(&reqid);
            is_negotiated && (manual.contains(&reqid) || owner.is_some()) && owner != entry.row.name.as_ref()
        };
        table.iter().filter(|(_, entry)| is_stranger(entry)).map(|(&id, _)| id).collect()
    }
}

fn parse(text: &str) -> Option<Numbers> {
    if text.is_empty() {
        return Some(Numbers::new());
    }
    let rows: Vec<Row> = serde_json::from_str(text).ok()?;
    let count = rows.len();
    let reqids: BTreeSet<u32> = rows.iter().map(|row| row.reqid).collect();
    let numbers: Numbers =
        rows.into_iter().map(|row| ((row.connection.into(), row.child.into()), Reqid(row.reqid))).collect();
    (reqids.len() == count && numbers.len() == count && !reqids.contains(&0)).then_some(numbers)
}

/// The file was opened to append.
fn write(file: &mut File, numbers: &Numbers) -> io::Result<()> {
    let rows: Vec<Row> = numbers
        .iter()
        .map(|((connection, child), reqid)| Row {
            connection: connection.to_string(),
            child: child.to_string(),
            reqid: reqid.0,
        })
        .collect();
    let text = serde_json::to_vec(&rows)?;
    file.set_len(0)?;
    file.write_all(&text)
}

fn reqids_of(table: &Table) -> BTreeSet<Reqid> {
    table.values().map(|entry| Reqid(entry.row.reqid)).collect()
}

/// Of manual SAs, and of policies that may have some.
fn of_manual(config: &Config) -> BTreeSet<Reqid> {
    let of_policies = config.policies.iter().filter_map(|policy| match policy.action {
        Action::Protect(reqid) => Some(reqid),
        Action::Bypass | Action::Discard => None,
    });
    config.sas.iter().map(|sa| sa.reqid).chain(of_policies).collect()
}

/// The file's number, else the one that the child has, else the first that nobody has.
fn assign(config: &Config, known: &Numbers, in_use: &BTreeSet<Reqid>) -> Numbers {
    let children = || {
        config
            .connections
            .iter()
            .flat_map(|connection| connection.children.iter().map(move |child| (connection, child)))
    };
    let mut of_file = of_manual(config);
    of_file.extend(children().filter_map(|(_, child)| child.reqid));
    let taken: BTreeSet<Reqid> = of_file.iter().chain(known.values()).chain(in_use).copied().collect();
    let mut free = (1..=u32::MAX).map(Reqid).filter(|reqid| !reqid.is_of_peer() && !taken.contains(reqid));
    children()
        .filter_map(|(connection, child)| {
            let name: ChildName = (connection.name.as_str().into(), child.name.as_str().into());
            let has = known.get(&name).copied().filter(|reqid| !of_file.contains(reqid));
            Some((name, child.reqid.or(has).or_else(|| free.next())?))
        })
        .collect()
}

#[cfg(test)]
mod tests;
