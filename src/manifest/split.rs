//! Seeded, stratified, group-aware splits.
