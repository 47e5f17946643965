//! What a run has covered: policy × sender × event.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// How many packets each combination has had.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    counts: BTreeMap<[String; 3], u64>,
}

impl Cells {
    /// Counts a packet.
    pub fn add(&mut self, policy: String, sender: String, event: &str) {
        *self.counts.entry([policy, sender, event.to_owned()]).or_default() += 1;
    }

    /// The table: for every policy and event, how many kinds of senders were tried, and what was not tried at all.
    pub fn table(&self) -> String {
        let kinds =
            |axis: usize| -> BTreeSet<&String> { self.counts.keys().map(|cell| &cell[axis]).collect() };
        let (policies, senders, events) = (kinds(0), kinds(1), kinds(2));
        let all = policies.len() * senders.len() * events.len();
        let packets: u64 = self.counts.values().sum();
        let mut text = format!(
            "{packets} packets in {} cells of policy × sender × event, of {all} ({} × {} × {})\n",
            self.counts.len(),
            policies.len(),
            senders.len(),
            events.len()
        );
        for policy in &policies {
            let _ = writeln!(text, "  {policy}");
            for event in &events {
                let of = self.counts.keys().filter(|cell| &&cell[0] == policy && &&cell[2] == event).count();
                let _ = writeln!(text, "    {of:4} of {} senders  {event}", senders.len());
            }
        }
        text
    }

    /// How many combinations there were.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}
