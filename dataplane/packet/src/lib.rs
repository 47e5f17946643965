//! Packet buffers, bursts and header views.
