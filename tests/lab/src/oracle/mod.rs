//! Programs that judge our packets: scapy and tshark.

pub mod ike;
pub mod scapy;
pub mod tshark;
