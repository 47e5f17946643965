//! INFORMATIONAL as responder (RFC 7296 §1.4, §2.25).

use pollux_abi::{SaId, Spi};

use super::Ours;
use crate::config::Action;
use crate::endpoint::Turn;
use crate::error::IkeError;
use crate::event::DownReason;
use crate::message::{NotifyType, Payloads, Protocol};
use crate::sa::{Channel, Established, Incoming, Phase, Task};

impl Established {
    /// A DELETE, an error that came too late for its own exchange, or a sign of life.
    pub(crate) fn on_informational_request(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
    ) {
        let deletes_ike = incoming.payloads.deletes().any(|delete| delete.protocol == Protocol::Ike);
        let ours = if deletes_ike { Vec::new() } else { self.on_deletes(channel, turn, incoming.payloads) };
        let sent = channel.respond(turn, incoming.exchange, incoming.id, |writer| {
            if !ours.is_empty() {
                writer.delete_esp(&ours);
            }
        });
        self.check(&sent);
        if deletes_ike {
            self.on_ike_deleted(turn);
            return;
        }
        let fatal = [NotifyType::InvalidSyntax, NotifyType::AuthenticationFailed]
            .into_iter()
            .find(|kind| incoming.payloads.has_notify(*kind));
        if let Some(notify) = fatal {
            self.answered_last = true;
            self.ended_by_peer(channel, turn, notify);
        } else if let Some(notify) = incoming.payloads.error() {
            self.on_late_error(channel, turn, notify.kind);
        }
    }

    /// The peer deletes Child SAs: our halves of the same pairs, which the answer names.
    fn on_deletes(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        payloads: &Payloads<'_>,
    ) -> Vec<Spi> {
        let mut ours = Vec::new();
        let mut spis: Vec<Spi> = Vec::new();
        for delete in payloads.deletes() {
            spis.extend(delete.esp_spis().take(SPIS_MAX - spis.len().min(SPIS_MAX)));
        }
        for spi in spis {
            if self.undecided {
                if self.late_deletes.len() < SPIS_MAX {
                    self.late_deletes.push(spi.get());
                }
                continue;
            }
            let Some(key) = self.children.of_peer_spi(spi.get()) else {
                if let Some(Ours::CreateChild(expect)) = &mut self.ours {
                    expect.deleted_by_peer(spi);
                }
                continue;
            };
            // Where our own DELETE of it is on its way, the answer does not name it (RFC 7296 §1.4.1).
            let both = matches!(&self.ours, Some(Ours::DeleteChild(expect)) if expect.child() == key);
            if let (false, Some(child)) = (both, self.children.get(key)) {
                ours.push(child.inbound.spi);
            }
            self.deleted_by_peer(channel, turn, key);
        }
        ours
    }

    /// A Child SA that the peer has deleted.
    pub(crate) fn deleted_by_peer(&mut self, channel: &Channel, turn: &mut Turn<'_>, key: SaId) {
        let replaced = self.children.has_stand_in(key);
        // The peer takes back what our rekey has made while we delete what it was to replace, or deletes what its own
        // rekey has replaced: nobody closes the child.
        let rekeyed = self.children.get(key).is_some_and(|child| {
            let old = child.replaces.and_then(|old| self.children.get(old));
            child.had_successor || child.initiator && old.is_some_and(|old| old.phase == Phase::Deleting)
        });
        let Some(child) = self.children.get_mut(key) else { return };
        if child.phase != Phase::Deleting {
            child.down = if replaced { DownReason::Replaced } else { DownReason::Peer };
            match &mut self.ours {
                _ if replaced => {}
                _ if !rekeyed && child.config.close_action != Action::Start => {
                    self.wanted.remove(&child.config.name);
                }
                // Our rekey may still go through.
                Some(Ours::CreateChild(expect)) if expect.rekeys(key) => expect.old_is_closed(),
                _ => self.tasks.push(Task::CreateChild(child.config.clone())),
            }
        }
        self.forget_child(channel, turn, key);
    }

    /// The peer deletes the IKE SA: whatever we were about to ask is moot (RFC 7296 §2.25.2).
    fn on_ike_deleted(&mut self, turn: &mut Turn<'_>) {
        self.answered_last = true;
        let successor = self.ours.take().and_then(|ours| ours.abandon(turn));
        if let (Some(successor), None) = (successor, self.successor) {
            self.transfer_to(turn, successor);
        }
        // The loser of two rekeys that met is not what the peer wants to be rid of.
        let replaced = self.successor.is_some() || self.redundant || self.undecided;
        self.finished = Some(match (replaced, self.closing) {
            (true, _) => DownReason::Replaced,
            (false, Some(reason)) => reason,
            (false, None) => DownReason::Peer,
        });
    }

    /// The peer found after an exchange that something was wrong with it.
    fn on_late_error(&mut self, channel: &Channel, turn: &mut Turn<'_>, notify: NotifyType) {
        let name = &self.peer.connection.name;
        let error = IkeError::PeerRefused {
            notify,
            offered: format!("to be {}", self.peer.local_id),
            key: format!("connection.{name}.local.id and psk"),
        };
        self.tell_refused(channel, turn, error);
    }
}

/// SPIs of one message that are looked at; more than the Child SAs that one IKE SA may have.
const SPIS_MAX: usize = 256;
