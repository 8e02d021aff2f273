//! Bootstrap intervals, McNemar's exact test and Holm's correction.
