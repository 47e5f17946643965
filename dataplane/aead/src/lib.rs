//! AEAD over bursts of ESP packets.
