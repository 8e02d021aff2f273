"""Processes with their times, peak memory and output, and the directories of the benchmarks."""
import json
import os
import pathlib
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = TARGET / "bench"
PEER = ROOT / "benches" / "peer"


class Process:
    """A finished process: wall and CPU time in seconds, peak memory of its process tree in MiB, and the JSON object it printed."""

    def __init__(self, command, cores=None, variables=None):
        """Runs a command on this number of cores, or all, with additional environment variables."""
        pin = (lambda: os.sched_setaffinity(0, range(cores))) if cores else None
        start = time.perf_counter()
        environment = os.environ | {"HDF5_USE_FILE_LOCKING": "FALSE"} | (variables or {})
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment,
            preexec_fn=pin,
        )
        self.memory = 0.0
        done = threading.Event()
        sampler = threading.Thread(target=self._sample_memory, args=(process.pid, done))
        sampler.start()
        errors = []
        drain = threading.Thread(target=lambda: errors.append(process.stderr.read()))
        drain.start()
        out = process.stdout.read()
        drain.join()
        _, status, usage = os.wait4(process.pid, 0)
        self.wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        sampler.join()
        self.cpu = usage.ru_utime + usage.ru_stime
        if process.returncode != 0:
            message = b"".join(errors).decode(errors="replace")[-2000:]
            raise SystemExit(f"bench: {' '.join(map(str, command))} failed with exit code {process.returncode}\n{message}")
        lines = [line for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
        self.output = json.loads(lines[-1]) if lines else {}

    def _sample_memory(self, pid, done):
        while not done.wait(0.2):
            self.memory = max(self.memory, sum(pss(member) for member in tree(pid)) / 1024)


def tree(pid):
    """The process and its descendants."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
        descendants = [int(child) for file in children for child in file.read_text().split()]
    except OSError:
        descendants = []
    return [pid] + [member for child in descendants for member in tree(child)]


def pss(pid):
    """Proportional set size in KiB: each shared page is divided among the processes that share it."""
    try:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
