//! Narrowing of traffic selectors (RFC 7296 §2.9).

use pollux_abi::TrafficSelector;
use pollux_abi::layout::SELECTORS_MAX;

/// The part of `theirs` that `ours` allows, at most [`SELECTORS_MAX`] selectors; empty: TS_UNACCEPTABLE.
///
/// The peer's first selector, which may be the very packet that wants the SA, is looked at first, so what
/// it shares with our policy is in the answer even where the answer has to be cut short.
pub fn narrow(
    ours: &[TrafficSelector],
    theirs: impl IntoIterator<Item = TrafficSelector>,
) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::with_capacity(SELECTORS_MAX);
    for theirs in theirs {
        for shared in ours.iter().filter_map(|ours| ours.intersection(&theirs)) {
            if narrowed.iter().any(|have| have.covers(&shared)) {
                continue;
            }
            narrowed.retain(|have| !shared.covers(have));
            if narrowed.len() < SELECTORS_MAX {
                narrowed.push(shared);
            }
        }
    }
    narrowed
}

/// Whether each selector of `answer` lies inside one of `offered`: a responder may narrow, never widen.
pub fn is_narrowed(offered: &[TrafficSelector], answer: impl IntoIterator<Item = TrafficSelector>) -> bool {
    answer.into_iter().all(|answer| offered.iter().any(|offered| offered.covers(&answer)))
}

/// Selectors as one piece of text for the log.
pub fn describe(selectors: impl IntoIterator<Item = TrafficSelector>) -> String {
    /// A line stays readable, whatever a peer sends.
    const SHOWN_MAX: usize = 16;
    let mut selectors = selectors.into_iter();
    let mut text = String::new();
    for selector in selectors.by_ref().take(SHOWN_MAX) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&selector.to_string());
    }
    if selectors.next().is_some() {
        text.push_str(", …");
    }
    if text.is_empty() { "nothing".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
