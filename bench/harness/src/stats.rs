//! Medians and what lies around them.

use serde::Serialize;

/// A contender's figures in one row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The smallest: what the core does when nobody disturbs it.
    pub min: f64,
    /// Half the distance between the quartiles, as a share of the median.
    pub spread: f64,
}

/// Sums up figures of several rounds.
///
/// # Panics
/// Where there are none.
pub fn summarize(figures: &[f64]) -> Summary {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = quantile(&sorted, 2);
    Summary { median, min: sorted[0], spread: (quantile(&sorted, 3) - quantile(&sorted, 1)) / 2.0 / median }
}

/// The median of `other / ours`, round by round: how many times faster ours is.
pub fn paired_ratio(ours: &[f64], other: &[f64]) -> f64 {
    let ratios: Vec<_> = ours.iter().zip(other).map(|(ours, other)| other / ours).collect();
    summarize(&ratios).median
}

/// The `quarter`-th quartile of sorted figures.
fn quantile(sorted: &[f64], quarter: usize) -> f64 {
    let at = (sorted.len() - 1) * quarter;
    let (low, part) = (at / 4, at % 4);
    let high = (low + 1).min(sorted.len() - 1);
    let weight = [0.0, 0.25, 0.5, 0.75][part];
    sorted[low] * (1.0 - weight) + sorted[high] * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_round_does_not_move_the_median() {
        let summary = summarize(&[10.0, 11.0, 10.0, 500.0, 9.0]);
        assert_eq!((summary.median, summary.min), (10.0, 9.0));
        assert!((summary.spread - 0.05).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // Both sides double in the second half, as they do when the clock drops; the ratio stays.
        let ratio = paired_ratio(&[1.0, 1.0, 2.0, 2.0], &[3.0, 3.0, 6.0, 6.0]);
        assert!((ratio - 3.0).abs() < 1e-9);
    }
}
