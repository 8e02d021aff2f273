//! What glibc's allocator keeps for itself. Elsewhere these do nothing.

/// Asks for as much as is used, rather than for speed: two arenas in place of eight a core, and large pieces returned as soon
/// as they are free. For servers, whose every thread would keep what its largest request ever took, and for SIFT. Before threads
/// start that allocate.
pub fn keep_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: these change thresholds of the allocator; documented above: no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Returns to the system what is free.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
