//! The log of a daemon: standard error, bounded in what it says of one thing and in what it takes of the disk.
//!
//! A message that comes again and again is written ten times, and then once in ten seconds with the number of
//! those that were left out. Where standard error is a file that is open for appending, as `pollux up` opens
//! it, the oldest lines go once it is longer than 8 MiB; the file is never truncated at a start.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, OFlags};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Messages of one kind that are written at once.
const BURST: u32 = 10;
/// Then one in this time.
const PACE: Duration = Duration::from_secs(10);
/// Kinds of messages; more share the limit of the first.
const KINDS_MAX: usize = 1_024;
/// Octets of the log file after which its oldest lines go.
const FILE_MAX: u64 = 8 << 20;
/// Octets that stay then.
const FILE_KEPT: usize = 2 << 20;
/// Octets between two looks at the file's length.
const LOOK: usize = 64 << 10;

/// Begins to log to standard error what `filter` lets through.
///
/// Messages whose target ends with `unlimited` are not counted here: whoever writes them limits them.
///
/// # Errors
/// If `filter` is none, or a log has begun already.
pub fn begin(filter: &str, unlimited: &'static str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let writer = Arc::new(Mutex::new(BoundedLog::new(io::stderr())));
    let limit = Limited { unlimited, limit: Mutex::new(RateLimit::default()), writer: Arc::clone(&writer) };
    let lines = tracing_subscriber::fmt::layer().with_writer(move || Shared(Arc::clone(&writer)));
    tracing_subscriber::registry()
        .with(filter)
        .with(limit)
        // A line that finds no room is lost; the complaint about it would go the same way, and panic.
        .with(lines.with_ansi(false).log_internal_errors(false))
        .try_init()
        .map_err(|error| error.to_string())
}

/// Prints a line on standard output, and goes on where that is closed or full: `println!` panics there.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::log::print(&mut ::std::io::stdout(), format_args!($($text)*))
    };
}

/// As [`say`](crate::say), on standard error.
#[macro_export]
macro_rules! complain {
    ($($text:tt)*) => {
        $crate::log::print(&mut ::std::io::stderr(), format_args!($($text)*))
    };
}

/// Writes a line if it can be written.
pub fn print(to: &mut dyn Write, text: fmt::Arguments<'_>) {
    let _ = to.write_fmt(format_args!("{text}\n"));
}

/// How often something may be said, by kind.
#[derive(Debug)]
pub struct RateLimit<K> {
    kinds: HashMap<K, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Messages that may be written at once.
    left: u32,
    /// When the last one was given.
    since: Instant,
    left_out: u64,
}

impl<K> Default for RateLimit<K> {
    fn default() -> Self {
        Self { kinds: HashMap::new() }
    }
}

impl<K: Hash + Eq> RateLimit<K> {
    /// Whether a message of this kind may be written now: then, how many before it were left out.
    pub fn admit(&mut self, kind: K, now: Instant) -> Option<u64> {
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            self.kinds.retain(|_, bucket| bucket.left_out > 0 || now.duration_since(bucket.since) < PACE);
            if self.kinds.len() >= KINDS_MAX {
                return None;
            }
        }
        let bucket = self.kinds.entry(kind).or_insert(Bucket { left: BURST, since: now, left_out: 0 });
        let steps = now.saturating_duration_since(bucket.since).as_secs() / PACE.as_secs();
        if steps > 0 {
            bucket.left = u32::try_from(steps).unwrap_or(BURST).saturating_add(bucket.left).min(BURST);
            bucket.since = now;
        }
        if bucket.left == 0 {
            bucket.left_out += 1;
            return None;
        }
        bucket.left -= 1;
        Some(std::mem::take(&mut bucket.left_out))
    }
}

/// A layer that lets no kind of message through more often than its limit allows.
struct Limited<W> {
    unlimited: &'static str,
    limit: Mutex<RateLimit<tracing::callsite::Identifier>>,
    writer: Arc<Mutex<W>>,
}

impl<S: Subscriber, W: Write + 'static> Layer<S> for Limited<W> {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if event.metadata().target().ends_with(self.unlimited) {
            return true;
        }
        let admitted = lock(&self.limit).admit(event.metadata().callsite(), Instant::now());
        if let Some(left_out) = admitted.filter(|&left_out| left_out > 0) {
            let mut message = Message(String::new());
            event.record(&mut message);
            // A log that cannot be written can only be left.
            let _ = writeln!(lock(&self.writer), "{left_out} messages were left out: {}", message.0);
        }
        admitted.is_some()
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

struct Shared<W>(Arc<Mutex<W>>);

impl<W: Write> Write for Shared<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        lock(&self.0).write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.0).flush()
    }
}

/// A panic of another thread while it wrote leaves at most half a line.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A writer that keeps the file behind it bounded.
#[derive(Debug)]
struct BoundedLog<W> {
    inner: W,
    /// A plain file that is open for appending: nobody but us writes into it.
    is_ours: bool,
    since_look: usize,
}

impl<W: Write + AsFd> BoundedLog<W> {
    fn new(inner: W) -> Self {
        let is_file = rustix::fs::fstat(&inner)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let appends = rustix::fs::fcntl_getfl(&inner).is_ok_and(|flags| flags.contains(OFlags::APPEND));
        Self { inner, is_ours: is_file && appends, since_look: LOOK }
    }
}

impl<W: Write + AsFd> Write for BoundedLog<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.is_ours && self.since_look >= LOOK {
            self.since_look = 0;
            shrink(self.inner.as_fd())?;
        }
        self.since_look += octets.len();
        self.inner.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Takes the oldest lines out of a log that has become too long.
fn shrink(file: BorrowedFd<'_>) -> io::Result<()> {
    let len = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    if len <= FILE_MAX {
        return Ok(());
    }
    let mut tail = vec![0; FILE_KEPT];
    // Nothing is read where the descriptor is only for writing: then all of it goes.
    let read = rustix::io::pread(file, &mut tail, len - FILE_KEPT as u64).unwrap_or(0);
    let whole = tail[..read].iter().position(|&octet| octet == b'\n').map_or(read, |end| end + 1);
    rustix::fs::ftruncate(file, 0)?;
    let mut rest = &tail[whole..read];
    let head = format!("the oldest {} octets of this log were removed\n", len - rest.len() as u64);
    rustix::io::write(file, head.as_bytes())?;
    while !rest.is_empty() {
        let written = rustix::io::write(file, rest)?;
        rest = &rest[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};

    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_ten_lines_and_then_one_in_ten_seconds_with_a_count() {
        let mut limit = RateLimit::default();
        let start = Instant::now();
        let flood =
            |limit: &mut RateLimit<u8>, at| (0..1_000).filter_map(|_| limit.admit(1, at)).collect::<Vec<_>>();
        assert_eq!(flood(&mut limit, start), [0; 10]);
        assert_eq!(limit.admit(2, start), Some(0), "another kind is not concerned");
        assert_eq!(flood(&mut limit, start + PACE), [990]);
        assert!(flood(&mut limit, start + PACE + PACE / 2).is_empty());
        assert_eq!(flood(&mut limit, start + 2 * PACE), [1_999]);
        let later = flood(&mut limit, start + 1_000 * PACE);
        assert_eq!((later.len(), later[0]), (10, 999));
    }

    #[test]
    fn kinds_are_bounded_and_old_ones_make_room() {
        let mut limit = RateLimit::default();
        let start = Instant::now();
        let admitted = (0..5_000).filter(|kind| limit.admit(*kind, start).is_some()).count();
        assert_eq!((admitted, limit.kinds.len()), (KINDS_MAX, KINDS_MAX));
        assert_eq!(limit.admit(9_999, start + 2 * PACE), Some(0));
    }

    #[test]
    fn a_log_file_stays_bounded_and_keeps_its_newest_lines() {
        let path = std::env::temp_dir().join(format!("pollux-log-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let open = || OpenOptions::new().create(true).append(true).read(true).open(&path).expect("a file");
        let mut longest = 0;
        let mut log = BoundedLog::new(open());
        writeln!(log, "the life before").expect("written");
        let mut log = BoundedLog::new(open());
        for n in 0..200_000 {
            writeln!(log, "line {n:>100}").expect("written");
            if n == 0 {
                let text = std::fs::read_to_string(&path).expect("readable");
                assert!(text.starts_with("the life before\nline"), "a start truncates nothing");
            }
            if n % 1_000 == 0 {
                longest = longest.max(std::fs::metadata(&path).expect("there").len());
            }
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        std::fs::remove_file(&path).expect("removed");
        assert!(longest > FILE_MAX / 2 && longest <= FILE_MAX + 2 * LOOK as u64, "{longest}");
        assert!(text.starts_with("the oldest ") && text.ends_with(&format!("line {:>100}\n", 199_999)));
        let mut lines = text.lines().skip(1).map(|line| line[5..].trim().parse::<u32>().expect("a number"));
        let first = lines.next().expect("some are kept");
        assert!(lines.eq(first + 1..200_000), "no line is missing or torn");
    }

    #[test]
    fn what_is_no_log_of_ours_is_never_shortened() {
        let path = std::env::temp_dir().join(format!("pollux-no-log-{}", std::process::id()));
        let file = File::create(&path).expect("a file");
        file.set_len(FILE_MAX + 1).expect("long");
        let mut log = BoundedLog::new(file);
        log.write_all(b"x").expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), FILE_MAX + 1);
        std::fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn the_layer_limits_each_call_and_says_what_it_left_out() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let limit = Limited { unlimited: "::journal", limit: Mutex::default(), writer: Arc::clone(&lines) };
        let shared = Arc::clone(&lines);
        let format = tracing_subscriber::fmt::layer().with_writer(move || Shared(Arc::clone(&shared)));
        let subscriber = tracing_subscriber::registry().with(limit).with(format.with_ansi(false));
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..100 {
                tracing::warn!(n, "a stranger connected");
                tracing::warn!(target: "pollux::journal", "an event");
            }
            tracing::error!("something else");
        });
        let text = String::from_utf8(lock(&lines).clone()).expect("text");
        let count = |what| text.matches(what).count();
        assert_eq!([count("a stranger"), count("an event"), count("something else")], [10, 100, 1]);
    }
}
