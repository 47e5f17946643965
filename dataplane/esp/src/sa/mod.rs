//! Security Associations: the hot halves that packets touch, the cold records, and how they are found.

mod id_map;
mod inbound;
mod lifetime;
mod outbound;
mod outer_template;
mod record;
mod selectors;
mod table;

use id_map::IdMap;
pub(crate) use inbound::InboundSa;
pub(crate) use lifetime::{Limits, Reached, flag};
pub(crate) use outbound::OutboundSa;
pub(crate) use outer_template::{Marks, OuterTemplate};
pub(crate) use record::SaRecord;
pub(crate) use selectors::SelectorTable;
pub(crate) use table::{Choice, SaTable, Slot, key_lines, place};
