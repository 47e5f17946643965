//! Programs that judge our packets: scapy.

pub mod scapy;
