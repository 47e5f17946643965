//! Shared memory of the two Pollux processes: memfd, mapping, ring indices.
