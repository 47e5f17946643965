//! The XDP program as a pure function: each row a frame, its port's role, and the verdict that must count it.
//!
//! Run by `BPF_PROG_TEST_RUN`, which needs root and no device. Without root each test says `skipped`.

#[path = "steer/frame.rs"]
mod frame;
#[path = "steer/rig.rs"]
mod rig;
#[path = "steer/run_dir.rs"]
mod run_dir;

#[path = "steer/abi.rs"]
mod abi;
#[path = "steer/gateway.rs"]
mod gateway;
#[path = "steer/link.rs"]
mod link;
#[path = "steer/lockout.rs"]
mod lockout;
#[path = "steer/maps.rs"]
mod maps;
#[path = "steer/pairs.rs"]
mod pairs;
#[path = "steer/truncated.rs"]
mod truncated;
