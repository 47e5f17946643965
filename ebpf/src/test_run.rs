//! The program as a function from frame to verdict, run by the kernel on a frame that never was on a wire.

use aya::programs::{TestRun as _, TestRunOptions};

use crate::error::SteerError;
use crate::steering::{PROGRAM, Steering};

/// What an XDP program tells the driver to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAction {
    /// The program met an error of its own; the frame is lost.
    Aborted,
    /// Drop.
    Drop,
    /// On to the kernel's network stack.
    Pass,
    /// Back out of the same interface.
    Tx,
    /// To a socket or another interface.
    Redirect,
}

/// Disposition of [`Steering::test_run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// The program's answer.
    pub action: XdpAction,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

impl Steering {
    /// Runs the program once on `frame`, as if `lo` of the calling thread's network namespace had received
    /// it on queue 0. The kernel wants 14 octets at least. Counters count; nothing is delivered.
    pub fn test_run(&mut self, frame: &[u8]) -> Result<TestRun, SteerError> {
        let mut out = vec![0; frame.len()];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = self
            .program(PROGRAM)?
            .test_run(options)
            .map_err(|source| SteerError::TestRun { len: frame.len(), source })?;
        let action = match result.return_value {
            0 => XdpAction::Aborted,
            1 => XdpAction::Drop,
            2 => XdpAction::Pass,
            3 => XdpAction::Tx,
            4 => XdpAction::Redirect,
            value => return Err(SteerError::UnknownAction { value }),
        };
        out.truncate(result.data_size_out as usize);
        Ok(TestRun { action, frame: out })
    }
}
