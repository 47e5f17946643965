//! Ports that bursts come from and go to: AF_XDP, memory, pcap.
