//! The vocabulary of both Pollux processes: ids, selectors, suites, ring slots, drop reasons.
