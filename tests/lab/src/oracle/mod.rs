//! Programs that judge our packets: scapy and tshark.

pub mod scapy;
pub mod tshark;
