//! Settings of glibc's allocator. On other systems these functions do nothing.

/// Limits malloc to two arenas instead of eight per core: few threads allocate much, and memory that one thread frees
/// can then be reused by the others. Must be called before other threads start.
pub fn limit_malloc_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: mallopt sets a parameter of the allocator; as documented above, no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Minimizes the resident memory of servers. Calls [`limit_malloc_arenas`] and fixes the thresholds from which malloc
/// returns memory to the system: freed allocations of at least 8 MiB, and free arena tops of at least 16 MiB. By default
/// malloc raises these thresholds, and every thread keeps the memory of its largest request. Must be called before other
/// threads start.
pub fn minimize_resident_memory() {
    limit_malloc_arenas();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: as in limit_malloc_arenas.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 8 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
    }
}

/// Returns free heap memory to the system.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: malloc_trim may be called at any time and from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
