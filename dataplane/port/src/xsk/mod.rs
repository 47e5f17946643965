//! AF_XDP: the UMEM and its frames, the four rings, the socket.
//!
//! One UMEM serves the whole process. Each worker has a partition of it ([`frames::FramePool`]), and each
//! (device, queue) a socket with four rings of its own ([`socket::XskPort`]) that one worker touches.
//! Frames travel between sockets of different devices as descriptors; no octet of a packet is copied here.

pub mod frames;
pub mod options;
pub mod socket;
pub mod umem;

mod ring;
mod syscall;
