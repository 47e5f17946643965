//! Security Associations: the hot halves that packets touch, the cold records, and how they are found.

mod front;
mod id_map;
mod inbound;
mod lifetime;
mod outbound;
mod record;
mod selectors;
mod table;

pub(crate) use front::{Front, Marks};
use id_map::IdMap;
pub(crate) use inbound::InboundSa;
pub(crate) use lifetime::{Limits, Reached, flag};
pub(crate) use outbound::OutboundSa;
pub(crate) use record::SaRecord;
pub(crate) use selectors::SelectorTable;
pub(crate) use table::{Choice, SaTable, Slot, key_lines, place};
