//! Patience with a data plane that is dying.
//!
//! A killed process gives its memory back before it closes its files: the larger its UMEM, the longer its sockets
//! answer and its lock holds after the signal. Whoever starts its successor at once is not to be told that
//! another data plane runs.

use std::time::{Duration, Instant};

/// How long a dying data plane may hold on to its files. 64 MB of packets took 0.3 s on a busy machine; ten times
/// that is still short enough for whoever starts a second one by mistake.
pub(crate) const DYING: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_millis(20);

/// Takes something again and again until it is free: until `take` succeeds, fails for another reason than that it
/// `is_taken`, or it is `until`.
pub(crate) fn once_free<T, E>(
    until: Instant,
    is_taken: impl Fn(&E) -> bool,
    mut take: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        match take() {
            Err(error) if is_taken(&error) && Instant::now() < until => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{QueryError, QuerySocket};
    use std::os::unix::net::UnixListener;

    #[test]
    fn socket_of_a_dying_process_is_waited_for_and_that_of_a_living_one_is_not_taken() {
        let path = std::env::temp_dir().join(format!("pollux-patience-{}", std::process::id()));
        let is_taken = |error: &QueryError| matches!(error, QueryError::InUse { .. });
        // What a killed process leaves: a listener that nobody reads, and then a file without one.
        let dying = UnixListener::bind(&path).expect("free");
        let end = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(dying);
        });
        let successor = once_free(Instant::now() + DYING, is_taken, || QuerySocket::bind(&path, None));
        end.join().expect("no panic");
        assert!(successor.is_ok(), "{successor:?}");
        let until = Instant::now() + Duration::from_millis(100);
        let second = once_free(until, is_taken, || QuerySocket::bind(&path, None));
        assert!(matches!(second, Err(QueryError::InUse { .. })), "{second:?}");
        assert!(Instant::now() >= until);
        drop(successor);
        let nowhere = std::path::Path::new("/nonexistent/socket");
        let broken = once_free(Instant::now() + DYING, is_taken, || QuerySocket::bind(nowhere, None));
        assert!(matches!(broken, Err(QueryError::RunDir { .. })), "what patience cannot fix fails at once");
    }
}
