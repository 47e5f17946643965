//! The thread that brings reservations of sequence numbers to the disk, a step before they are used. Neither
//! workers nor the housekeeper wait for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use pollux_sandbox::{CapabilitySet, privileges};
use pollux_shm::CheckpointWriter;

/// Pause between two looks: a fast SA uses up a step in some 50 ms.
const PAUSE: Duration = Duration::from_millis(20);

/// The thread; dropping it ends it.
#[derive(Debug)]
pub struct CounterWriter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl CounterWriter {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no thread to be had, or it cannot give up its privileges where `sandboxed` wants it.
    pub fn start(writer: CheckpointWriter, sandboxed: bool) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let (ready, is_ready) = channel();
        let body = move || {
            let given_up =
                if sandboxed { privileges::keep_only(CapabilitySet::empty()).map(drop) } else { Ok(()) };
            let go_on = given_up.is_ok();
            // The starter waits for it.
            let _ = ready.send(given_up);
            if go_on {
                run(writer, &stopped);
            }
        };
        let thread = std::thread::Builder::new().name("counters".to_owned()).spawn(body)?;
        is_ready.recv().map_err(std::io::Error::other)??;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for CounterWriter {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed, and there is nothing left to save.
            let _ = thread.join();
        }
    }
}

fn run(mut writer: CheckpointWriter, stopped: &Receiver<()>) {
    let mut failed = false;
    while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        match writer.advance() {
            Ok(done) => {
                failed = false;
                if done.late > 0 {
                    tracing::warn!(
                        late = done.late,
                        "counter-file-late: sequence numbers may be in use that are not on disk yet"
                    );
                }
            }
            // Traffic goes on: a crash of the machine, not of the process, would make the peer drop packets.
            Err(error) if !failed => {
                failed = true;
                tracing::error!(%error, "counter-file-not-written");
            }
            Err(_) => {}
        }
    }
}
