//! Making the data plane what the configuration says: only the difference, in an order that keeps closed.
//!
//! ```text
//!   data plane with state:  SAs added and replaced ─► policies ─► old outbound SAs go, old inbound ones linger
//!   fresh data plane:       policies first, so that nothing leaves in clear while ten thousand SAs come
//! ```

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pollux_abi::{SaId, WorkerId};
use pollux_config::api::{ReloadReport, fingerprint};
use tokio::sync::oneshot;

use crate::install::{ListNumber, Refusal};
use crate::journal::{Level, fields};
use crate::manual::{self, Wanted, direction_of};
use crate::policies;
use crate::shell::{BULK_PATIENCE, Shell, Timer};
use crate::table::{SaEntry, State};

/// After how long what was not acknowledged in time is asked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// Who waits for a change, and what is told.
pub(crate) type Reply = oneshot::Sender<Result<ReloadReport, String>>;

/// A change on its way.
#[derive(Debug)]
pub(crate) struct Change {
    report: ReloadReport,
    /// SAs whose outcome is waited for.
    waiting: HashSet<SaId>,
    /// What takes the place of an SA once that is gone.
    recreate: HashMap<SaId, Wanted>,
    policies: Step,
    then_remove: Vec<SaId>,
    /// Whether some of it was not acknowledged in time: the data plane may have it or not.
    is_late: bool,
    reply: Option<Reply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// To be sent when the SAs are there.
    Later,
    /// On its way.
    Sent(ListNumber),
    /// In force, or refused.
    Done,
}

impl Change {
    /// Whether it goes on once this SA's turn is over.
    pub(crate) fn awaits(&self, id: SaId) -> bool {
        self.waiting.contains(&id)
    }

    /// Ends the wait of whoever asked for it.
    pub(crate) fn answer(mut self, result: Result<(), String>) {
        if let Some(reply) = self.reply.take() {
            // Whoever asked may be gone.
            let _ = reply.send(result.map(|()| self.report));
        }
    }
}

impl Shell {
    /// Applies the configuration that is in force to the data plane that is attached.
    pub(crate) fn begin(&mut self, now: Instant, is_fresh: bool, reply: Option<(Reply, ReloadReport)>) {
        let Some(rings) = &self.rings else { return };
        let attach_reply = rings.attach_reply.clone();
        let (reply, mut report) =
            reply.map_or((None, ReloadReport::default()), |(reply, report)| (Some(reply), report));
        self.refused.clear();
        let has_read = self.recall_keys(&mut report);
        let wanted = manual::wanted(&self.config, &self.secrets, &attach_reply, &mut self.rng);
        let plan = manual::plan(wanted, &self.config, &self.table);
        self.keep_reqids(&mut report);
        for name in plan.without_key.iter().filter(|_| has_read) {
            let line = format!(
                "sa {name}: its key in the secrets file is another than when the file was read; `pollux reload` takes it over"
            );
            report.refused.push(line.clone());
            self.refuse(name, line);
        }
        for (name, id) in plan.kept {
            report.sas_untouched += 1;
            self.adopt(id, name);
        }
        self.apply_marks(&mut report);
        let mut change = Change {
            report,
            waiting: HashSet::new(),
            recreate: HashMap::new(),
            policies: Step::Later,
            then_remove: plan.removed,
            is_late: !has_read,
            reply,
        };
        for id in self.reqids.strangers(&self.config, &self.table) {
            change.waiting.insert(id);
            self.evict(id);
        }
        if is_fresh {
            change.policies = Step::Sent(self.send_policies());
        }
        for (wanted, id) in plan.replaced {
            change.report.sas_replaced.push(wanted.name.clone());
            change.waiting.insert(id);
            self.replace(wanted, &attach_reply.fingerprint_key);
        }
        for (wanted, id) in plan.recreated {
            change.waiting.insert(id);
            self.remove(id, BULK_PATIENCE);
            change.recreate.insert(id, wanted);
        }
        for wanted in plan.added {
            self.add(now, wanted, &mut change);
        }
        self.change = Some(change);
        self.advance(now);
    }

    /// Manual SAs are compared by their keys, which are not kept: whether they could be read again.
    fn recall_keys(&mut self, report: &mut ReloadReport) -> bool {
        self.had_keys = true;
        let Err(problems) = self.secrets.recall_keys(&self.config) else { return true };
        let line = format!("manual SAs stay as they are, since their keys cannot be read: {problems}");
        report.refused.push(line.clone());
        self.refuse("secrets", line);
        false
    }

    /// What the data plane has from now on may be found by these numbers in our next life.
    fn keep_reqids(&mut self, report: &mut ReloadReport) {
        if let Err(error) = self.reqids.keep(&self.table) {
            let line = format!(
                "the table of reqids in the run directory cannot be written: {error}; when control starts again, Child SAs of new children end"
            );
            report.refused.push(line.clone());
            self.refuse("reqids", line);
        }
    }

    /// An SA whose reqid is another's now goes before the policies come that would find it.
    fn evict(&mut self, id: SaId) {
        let Some(entry) = self.table.get(&id) else { return };
        let reqid = entry.row.reqid;
        let text = format!("sa {}: its reqid {reqid} is another's now: it is removed", self.sa_name(id));
        let facts = self.sa_fields(id).with("reqid", reqid);
        self.journal.note(Level::Warn, "sa-evicted", text, facts);
        self.evicted.insert(id);
        self.remove(id, BULK_PATIENCE);
    }

    /// An SA that stays, perhaps under another name.
    fn adopt(&mut self, id: SaId, name: String) {
        let Some(entry) = self.table.get_mut(&id) else { return };
        entry.row.name = Some(name);
        entry.state = State::Installed;
    }

    fn add(&mut self, now: Instant, wanted: Wanted, change: &mut Change) {
        let Some(key) = self.rings.as_ref().map(|rings| rings.attach_reply.fingerprint_key) else { return };
        let Wanted { name, mut spec, key: material, .. } = wanted;
        let Some(index) = self.allocator.place(spec.direction, now) else {
            let line = format!(
                "sa {name}: no free {} place in the data plane's table; write a larger sa_capacity",
                direction_of(&spec)
            );
            change.report.refused.push(line.clone());
            self.refuse(&name, line);
            return;
        };
        spec.id = self.allocator.id();
        spec.index = index;
        let print = fingerprint(&key, spec.suite, &material);
        self.table.insert(spec.id, SaEntry::new(&spec, print, Some(name.clone())));
        change.waiting.insert(spec.id);
        change.report.sas_added.push(name);
        self.installer.add(spec, material, BULK_PATIENCE);
    }

    fn replace(&mut self, wanted: Wanted, fingerprint_key: &[u8; 32]) {
        let Wanted { name, mut spec, key, .. } = wanted;
        let Some(entry) = self.table.get_mut(&spec.id) else { return };
        spec.checkpoint = entry.row.checkpoint;
        let print = fingerprint(fingerprint_key, spec.suite, &key);
        let key = (print != entry.row.fingerprint).then_some(key);
        *entry = SaEntry::new(&spec, print, Some(name));
        self.installer.replace(spec, key, BULK_PATIENCE);
    }

    /// Puts the list in force, unless the data plane has it.
    pub(crate) fn send_policies(&mut self) -> ListNumber {
        self.entries = policies::list(&self.config, self.reqids.children(), &self.peers);
        let list = self.entries.iter().map(|entry| entry.spec).collect();
        self.installer.policies(list, BULK_PATIENCE)
    }

    /// A manual SA's turn is over.
    pub(crate) fn change_sa_done(
        &mut self,
        now: Instant,
        id: SaId,
        name: Option<String>,
        result: Result<(), Refusal>,
    ) {
        let Some(mut change) = self.change.take() else { return };
        if change.waiting.remove(&id) {
            if let Some(wanted) = change.recreate.remove(&id) {
                self.add(now, wanted, &mut change);
            } else if let Err(refusal) = result {
                change.is_late |= matches!(refusal, Refusal::Late(_));
                let name = name.unwrap_or_else(|| self.sa_name(id));
                let line = format!("sa {name}: {refusal}");
                change.report.refused.push(line.clone());
                self.refuse(&name, line);
            }
        }
        self.change = Some(change);
        self.advance(now);
    }

    /// The policy list's turn is over.
    pub(crate) fn change_policies_done(&mut self, now: Instant, number: ListNumber, is_late: bool) {
        match &mut self.change {
            Some(change) => change.is_late |= is_late,
            None if is_late => self.try_again(now),
            None => {}
        }
        // A list that was on its way before the change's own says nothing of it.
        if let Some(change) = &mut self.change
            && matches!(change.policies, Step::Sent(sent) if sent <= number)
        {
            change.policies = Step::Done;
            if let Some(line) = self.refused.get("policies") {
                change.report.refused.push(line.clone());
            }
        }
        self.advance(now);
    }

    /// Takes the next step of the change, if the last one is over.
    fn advance(&mut self, now: Instant) {
        let Some(change) = &mut self.change else { return };
        if change.policies == Step::Later && change.waiting.is_empty() {
            let wanted: Vec<_> = self.entries.iter().map(|entry| entry.spec).collect();
            let list = policies::list(&self.config, self.reqids.children(), &self.peers);
            let same = wanted.len() == list.len()
                && self
                    .in_force
                    .as_ref()
                    .is_some_and(|have| have.iter().eq(list.iter().map(|entry| &entry.spec)));
            change.report.policies_changed = !same;
            if same {
                change.policies = Step::Done;
                self.entries = list;
            } else {
                let sent = Step::Sent(self.send_policies());
                if let Some(change) = &mut self.change {
                    change.policies = sent;
                }
            }
        }
        let Some(change) =
            self.change.take_if(|change| change.policies == Step::Done && change.waiting.is_empty())
        else {
            return;
        };
        self.finish(now, change);
    }

    fn finish(&mut self, now: Instant, mut change: Change) {
        for id in std::mem::take(&mut change.then_remove) {
            let Some(entry) = self.table.get_mut(&id).filter(|entry| entry.state == State::Installed) else {
                continue;
            };
            change
                .report
                .sas_removed
                .push(entry.row.name.take().unwrap_or_else(|| format!("{:#010x}", entry.row.spi)));
            if entry.is_inbound() && !self.config.control.overlap.is_zero() {
                entry.state = State::Lingering;
                let when = now + self.config.control.overlap;
                self.at(when, Timer::Remove(id));
            } else {
                self.remove(id, BULK_PATIENCE);
            }
        }
        if change.is_late {
            self.try_again(now);
        }
        self.secrets.forget_keys();
        let report = &change.report;
        self.journal.note(
            if report.refused.is_empty() { Level::Info } else { Level::Warn },
            "applied",
            format!(
                "configuration applied: {} SAs added, {} replaced, {} removed, {} untouched{}; {} refused",
                report.sas_added.len(),
                report.sas_replaced.len(),
                report.sas_removed.len(),
                report.sas_untouched,
                if report.policies_changed { "; other policies" } else { "" },
                report.refused.len()
            ),
            fields(),
        );
        change.answer(Ok(()));
    }

    /// Compares what is wanted with what the data plane has in a while.
    fn try_again(&mut self, now: Instant) {
        self.timers.retain(|_, timer| *timer != Timer::TryAgain);
        self.at(now + AGAIN, Timer::TryAgain);
    }

    /// Something that was put off is due.
    pub(crate) fn timer(&mut self, now: Instant, timer: &Timer) {
        match *timer {
            Timer::Remove(id) => {
                // A later reload may have wanted it back.
                if self.table.get(&id).is_some_and(|entry| entry.state == State::Lingering) {
                    self.remove(id, BULK_PATIENCE);
                }
            }
            Timer::TryAgain if self.change.is_some() => self.try_again(now),
            Timer::TryAgain => self.begin(now, false, None),
        }
    }

    /// The worker for the SAs of a reqid.
    pub(crate) fn owner(&self, reqid: pollux_abi::Reqid) -> WorkerId {
        let workers = self.rings.as_ref().map_or(1, |rings| rings.attach_reply.workers.max(1));
        WorkerId(u16::try_from(reqid.0 % u32::from(workers)).unwrap_or_default())
    }
}
