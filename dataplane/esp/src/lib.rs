//! ESP (RFC 4303) over bursts of packets: Security Associations, replay windows, policies, encapsulation.
//!
//! Not in this crate: ports, sockets, threads, a clock, randomness. Time comes in with every call; keys,
//! first IVs and first sequence numbers come in with commands; packets come in and leave as [`Burst`]s.
//!
//! ```text
//!   inbound(now, burst)    lookup ─► precheck ─► open ─► commit ─► trailer ─► check ─► decap ─► Forward
//!                          (SPI)     (replay)   (AEAD)   (replay)             (selectors)
//!   outbound(now, burst)   policy ─► select ─► mtu ─► sequence ─► encap ─► seal ─► Forward
//!   apply(now, command)    SA tables, on the worker's own thread, between bursts
//!   poll_event()           what control must hear of
//! ```
//!
//! A round of a worker, for ports of one side each:
//!
//! ```text
//!   classify(&mut burst, ENCAP_PORT);          // pollux-packet: strips the link header, fills Meta
//!   engine.inbound(now, &mut burst);           // wan: ESP becomes inner packets
//!   engine.inbound_clear(&mut burst);          // wan: what came in clear, judged by policy
//!   engine.outbound(now, &mut burst);          // lan, host: inner packets become ESP
//!   burst.take_dropped(|packet, reason| …);    // count once, reclaim the frame
//!   // HandOver(owner): send to that worker, which calls inbound_owned or outbound_owned
//!   // Early: hold it for a moment and offer it to inbound again, or ask give_up for its reason
//!   // Forward, Bypass, Reply: route by meta.flow.destination(), write the link header, send
//! ```
//!
//! Promises: no allocation on the packet path; no panic on anything that comes from the wire or in a
//! command; nothing blocks. State is allocated in [`Engine::new`]; a command allocates only inside a
//! cipher that has no kernel of ours. The engine counts no drops: whoever takes a packet with
//! `Drop` or `Reply` out of the burst does, once.
//!
//! [`Burst`]: pollux_packet::Burst
#![forbid(unsafe_code)]

mod apply;
mod counters;
mod engine;
mod event;
mod explain;
pub mod fragment;
mod icmp_error;
mod inbound;
mod limit;
mod mark;
mod mtu;
mod natt;
mod outbound;
mod packet_mask;
pub mod policy;
mod replay;
mod sa;

pub use counters::{EngineCounters, SaCounterTable};
pub use engine::{Engine, EngineConfig, EngineError};
pub use explain::{ExplainedSa, Explanation, Outcome};
pub use mark::take_hop;
pub use policy::CompiledPolicies;
