//! What a store or a manifest holds.
