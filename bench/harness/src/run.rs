//! Where and when a run took place.

use std::hint::black_box;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// What belongs beside every figure.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Day of the run, `2026-01-31`, UTC.
    pub date: String,
    /// The CPU's name and, since hypervisors hide it, its family and model.
    pub cpu: String,
    /// CPUs that the system shows.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The clock that a core runs at, in GHz: hypervisors show that of the time-stamp counter. 0 where it is not known.
    pub ghz: f64,
}

impl Machine {
    /// Asks the system; what it does not tell is `unknown`.
    pub fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line =
                cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
            line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim())
        };
        let cpu = format!("{}, family {} model {}", field("model name"), field("cpu family"), field("model"));
        let kernel =
            std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned());
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        Self { date: today(), cpu, cpus, kernel: kernel.trim().to_owned(), ghz: core_ghz() }
    }
}

/// The clock of this core, from a chain of multiplications and exclusive-ors, which x86-64 CPUs take three and one
/// cycles for.
fn core_ghz() -> f64 {
    const STEPS: u32 = 1_000_000;
    if !cfg!(target_arch = "x86_64") {
        return 0.0;
    }
    let quickest = (0..9).map(|_| {
        let (mut link, factor, mask) = (black_box(1_u64), black_box(0x9e37_79b9_7f4a_7c15), black_box(1));
        let start = Instant::now();
        for _ in 0..STEPS {
            link = link.wrapping_mul(factor) ^ mask;
        }
        black_box(link);
        start.elapsed().as_secs_f64()
    });
    let hertz = 4.0 * f64::from(STEPS) / quickest.fold(f64::INFINITY, f64::min);
    (hertz / 1e7).round() / 100.0
}

/// Today in UTC, from the days since 1970 by the usual count of days in 400 years.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of the day that is so many days after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in
            [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_778, (2026, 11, 21))]
        {
            assert_eq!(civil(days), date);
        }
    }
}
