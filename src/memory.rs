//! Settings of glibc's allocator, which have no effect on other systems, and the memory that is available.

use std::path::Path;

/// Returns the memory in bytes that this process can use: what Linux reports as available, or the limit of its control group if
/// that is less. Returns `None` on other systems.
pub fn available() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let free = available_in(&read(Path::new("/proc/meminfo"))?)?;
    let limits = limit_files(&read(Path::new("/proc/self/cgroup")).unwrap_or_default());
    let limits = limits.iter().filter_map(|file| read(Path::new(file))?.trim().parse::<u64>().ok());
    Some(limits.fold(free, u64::min))
}

/// Returns the available memory in bytes from the text of `/proc/meminfo`.
fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the files with the memory limits of the control groups in the text of `/proc/self/cgroup`, and of their parents.
/// The file of a group without a limit, or of one outside of the container, does not contain a number or does not exist.
fn limit_files(cgroups: &str) -> Vec<String> {
    let groups = cgroups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        match controllers {
            "" => Some(("/sys/fs/cgroup", "memory.max", path)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path))
            }
            _ => None,
        }
    });
    groups
        .flat_map(|(root, file, path)| {
            let parents = Path::new(path).ancestors().map(|parent| parent.display().to_string());
            parents.map(move |parent| format!("{root}{}/{file}", parent.trim_end_matches('/')))
        })
        .collect()
}

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

/// Keeps freed memory in the process, for programs that allocate and free large arrays over and over: by default malloc maps them, so
/// that the system clears their pages at each allocation, a quarter of the time of a training step. Calls [`limit_malloc_arenas`]. Must
/// be called before other threads start.
pub fn keep_freed_memory() {
    limit_malloc_arenas();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: as in limit_malloc_arenas.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_available_memory_and_the_files_of_limits() {
        let meminfo = "MemTotal:       16332484 kB\nMemFree:  1 kB\nMemAvailable:    8166242 kB\n";
        assert_eq!(available_in(meminfo), Some(8_166_242 * 1024));
        assert_eq!(available_in("MemTotal: 1 kB\n"), None);
        let files = limit_files("11:cpu,cpuacct:/a\n4:memory:/slurm/job\n0::/user.slice\n");
        let expected = [
            "/sys/fs/cgroup/memory/slurm/job/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/slurm/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/user.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, expected);
        assert!(!cfg!(target_os = "linux") || available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
