//! Tests of clusters of real processes: one file under `tests/` per event. What they share is in
//! `tally-testkit`.
