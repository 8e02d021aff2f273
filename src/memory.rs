//! What glibc's allocator keeps for itself. Elsewhere these do nothing.

/// Two arenas in place of eight a core: no more threads than that allocate much, and what one leaves free serves others.
/// Before threads start that allocate.
pub fn share_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: this changes a threshold of the allocator; documented above: no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Asks for little more than is used: few arenas, which keep what a poster takes, and larger pieces returned as soon as they
/// are free. For servers, whose every thread would keep what its largest request ever took. Before threads start that
/// allocate.
pub fn keep_small() {
    share_arenas();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: as above.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 8 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
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
