//! ESP over bursts of packets, without ports, threads or clock.
