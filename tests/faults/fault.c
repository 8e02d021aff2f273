// Makes one system call of a program fail: a library for LD_PRELOAD, for Linux on x86-64 and AArch64. It needs no privileges.
//
// A seccomp filter turns the system calls that change files into signals, so that also those are hit that do not go through the C library.
// The handler of the signal makes the call itself, or returns an error. Variables of the environment:
//
//   FAULT_DIRECTORY  only calls on files below this directory (absolute, without links) count
//   FAULT_CALL       number of the call that fails, from 1; 0 for none
//   FAULT_CALLS      kinds of calls that count, such as "write sync"; all by default (KINDS)
//   FAULT_ACTION     an error number; "after N": the call is made, and then reported as failed; "from N": this call and all later ones that
//                    would need space fail; "kill": SIGKILL before the call
//   FAULT_LOG        file to which a line is appended: "KIND CALL PATH" of each call if FAULT_CALL is 0, otherwise of the one that fails
//   FAULT_CLOCK      "T D": from time T (seconds since 1970) on, the clock and the modification times of files are D seconds later
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
// The system call, at an address that the filter lets pass.
__asm__(".text\n.align 64\n.globl fault_syscall\n.hidden fault_syscall\nfault_syscall:\n"
        "mov %rdi, %rax\nmov %rsi, %rdi\nmov %rdx, %rsi\nmov %rcx, %rdx\nmov %r8, %r10\nmov %r9, %r8\nmov 8(%rsp), %r9\nsyscall\nret\n.skip 64\n");
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
__asm__(".text\n.align 6\n.globl fault_syscall\n.hidden fault_syscall\nfault_syscall:\n"
        "mov x8, x0\nmov x0, x1\nmov x1, x2\nmov x2, x3\nmov x3, x4\nmov x4, x5\nmov x5, x6\nsvc 0\nret\n.skip 64\n");
#else
#error "only x86-64 and AArch64"
#endif
long fault_syscall(long number, long a, long b, long c, long d, long e, long f);

enum { FD, PATH, AT, TWO_PATHS, TWO_AT, OPEN, OPEN_AT, STATX };
static const struct call { int number; const char *kind, *name; int arguments; } CALLS[] = {
    { SYS_write, "write", "write", FD },
    { SYS_pwrite64, "write", "pwrite", FD },
    { SYS_writev, "write", "writev", FD },
    { SYS_pwritev, "write", "pwritev", FD },
    { SYS_ftruncate, "write", "ftruncate", FD },
    { SYS_fallocate, "write", "fallocate", FD },
    { SYS_copy_file_range, "write", "copy_file_range", FD },
    { SYS_fsync, "sync", "fsync", FD },
    { SYS_fdatasync, "sync", "fdatasync", FD },
    { SYS_renameat, "rename", "renameat", TWO_AT },
    { SYS_renameat2, "rename", "renameat2", TWO_AT },
    { SYS_linkat, "rename", "linkat", TWO_AT },
    { SYS_openat, "create", "openat", OPEN_AT },
    { SYS_mkdirat, "create", "mkdirat", AT },
    { SYS_unlinkat, "remove", "unlinkat", AT },
#if defined(__x86_64__)
    { SYS_rename, "rename", "rename", TWO_PATHS },
    { SYS_link, "rename", "link", TWO_PATHS },
    { SYS_open, "create", "open", OPEN },
    { SYS_creat, "create", "creat", PATH },
    { SYS_mkdir, "create", "mkdir", PATH },
    { SYS_unlink, "remove", "unlink", PATH },
    { SYS_rmdir, "remove", "rmdir", PATH },
#endif
    { SYS_statx, "stat", "statx", STATX },
};
#define COUNT (sizeof CALLS / sizeof *CALLS)

static char directory[4096];
static size_t directory_length;
static long target, error;
static int after, from, kill_before, log_file = -1;
static const char *kinds;
static atomic_long calls;
static long long clock_from;
static long clock_change;

static void append(char *to, size_t size, const char *text) { strncat(to, text, size - strlen(to) - 1); }

// Writes the path of a descriptor, which may be followed by " (deleted)".
static void path_of(int fd, char *path, size_t size) {
    char link[64];
    if (fd == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = fault_syscall(SYS_readlinkat, AT_FDCWD, (long)link, (long)path, (long)size - 1, 0, 0);
    path[length < 0 ? 0 : length] = 0;
}

static void resolve(int base, const char *name, char *path, size_t size) {
    path[0] = 0;
    if (name[0] != '/') {
        path_of(base, path, size);
        append(path, size, "/");
    }
    append(path, size, name);
}

static int counts(const struct call *call, const long *arguments, char *path, size_t size) {
    switch (call->arguments) {
    case FD: path_of((int)arguments[0], path, size); break;
    case PATH: resolve(AT_FDCWD, (const char *)arguments[0], path, size); break;
    case AT: resolve((int)arguments[0], (const char *)arguments[1], path, size); break;
    case TWO_PATHS: resolve(AT_FDCWD, (const char *)arguments[1], path, size); break;
    case TWO_AT: resolve((int)arguments[2], (const char *)arguments[3], path, size); break;
    case OPEN:
        if (!(arguments[1] & O_CREAT) && (arguments[1] & O_TMPFILE) != O_TMPFILE) return 0;
        resolve(AT_FDCWD, (const char *)arguments[0], path, size);
        break;
    case OPEN_AT:
        if (!(arguments[2] & O_CREAT) && (arguments[2] & O_TMPFILE) != O_TMPFILE) return 0;
        resolve((int)arguments[0], (const char *)arguments[1], path, size);
        break;
    default: return 0;
    }
    return strstr(kinds, call->kind) && !strncmp(path, directory, directory_length);
}

static void log_call(const struct call *call, const char *path) {
    char line[8192];
    int length = snprintf(line, sizeof line, "%s %s %s\n", call->kind, call->name, path);
    fault_syscall(SYS_write, log_file, (long)line, length, 0, 0, 0);
}

static long make(const struct call *call, const long *a) {
    long result = fault_syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (call->arguments == STATX && result == 0 && clock_from && ((struct statx *)a[4])->stx_mtime.tv_sec >= clock_from)
        ((struct statx *)a[4])->stx_mtime.tv_sec += clock_change;
    return result;
}

static long handle(const struct call *call, const long *arguments) {
    char path[8192];
    if (!directory_length || !counts(call, arguments, path, sizeof path)) return make(call, arguments);
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (target == 0) {
        log_call(call, path);
        return make(call, arguments);
    }
    int later = from && number > target && (!strcmp(call->kind, "write") || !strcmp(call->kind, "create"));
    if (number != target && !later) return make(call, arguments);
    if (number == target) log_call(call, path);
    if (kill_before) fault_syscall(SYS_kill, getpid(), SIGKILL, 0, 0, 0, 0);
    if (after) {
        long result = make(call, arguments);
        if (result < 0) return result;
        // A descriptor that nobody knows would stay open.
        if (call->arguments == OPEN || call->arguments == OPEN_AT) fault_syscall(SYS_close, result, 0, 0, 0, 0, 0);
    }
    return -error;
}

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)signal;
    ucontext_t *state = context;
    const struct call *call = CALLS;
    while (call < CALLS + COUNT - 1 && call->number != info->si_syscall) call++;
#if defined(__x86_64__)
    greg_t *r = state->uc_mcontext.gregs;
    long arguments[6] = { r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9] };
    r[REG_RAX] = handle(call, arguments);
#else
    unsigned long long *r = state->uc_mcontext.regs;
    long arguments[6] = { r[0], r[1], r[2], r[3], r[4], r[5] };
    r[0] = handle(call, arguments);
#endif
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    long result = fault_syscall(SYS_clock_gettime, clock, (long)time, 0, 0, 0, 0);
    if (result == 0 && clock == CLOCK_REALTIME && clock_from && time->tv_sec >= clock_from) time->tv_sec += clock_change;
    if (result < 0) errno = (int)-result;
    return result < 0 ? -1 : 0;
}

static void install_filter(void) {
    struct sock_filter filter[COUNT + 16];
    size_t n = 0;
    uint64_t low = (uint64_t)fault_syscall;
    // Calls of this library pass.
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(low >> 32), 0, 4);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer));
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)low, 0, 2);
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (uint32_t)low + 63, 1, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < COUNT; i++)
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, COUNT - i, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = { .len = (unsigned short)n, .filter = filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("fault: no seccomp filter");
        _exit(99);
    }
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

__attribute__((constructor)) static void start(void) {
    snprintf(directory, sizeof directory, "%s", variable("FAULT_DIRECTORY"));
    directory_length = strlen(directory);
    kinds = *variable("FAULT_CALLS") ? variable("FAULT_CALLS") : "write sync rename create remove";
    target = atol(variable("FAULT_CALL"));
    const char *action = variable("FAULT_ACTION");
    after = !strncmp(action, "after ", 6);
    from = !strncmp(action, "from ", 5);
    kill_before = !strcmp(action, "kill");
    error = atol(action + (after ? 6 : from ? 5 : 0));
    if (*variable("FAULT_CLOCK")) sscanf(variable("FAULT_CLOCK"), "%lld %ld", &clock_from, &clock_change);
    if (*variable("FAULT_LOG")) log_file = open(variable("FAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    struct sigaction handler = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
    if (sigaction(SIGSYS, &handler, NULL)) _exit(99);
    install_filter();
}
