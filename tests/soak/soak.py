"""The soak test: extraction in shards, merge and training on many clips, with kill -9 at random moments.

    soak.py PROGRAMS --clips 2000 --shards 8 --kills 30 --seed 0

PROGRAMS is the directory of the programs. Clips of many kinds are generated (clips.py), 5 % of them damaged. One undisturbed process extracts
all of them; the slope of its resident memory over the number of clips is a least-squares fit. Then the clips are extracted in shards, two
at a time, and merged, and a classifier is trained, while processes are killed and started again. At the end, the results must equal those of
the undisturbed run, and nothing else may remain. Needs ffmpeg, h5py and numpy (`make test-soak` provides them).
"""
import argparse
import concurrent.futures
import csv
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import h5py
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
import compare_runs  # noqa: E402

# Exit codes of the programs.
DONE, SOME_FAILED = 0, 3
KILLED = -9
# Memory may grow by the names of the clips and their positions in the journal, MiB per 1,000 clips.
MAX_SLOPE = 5.0
# With fewer clips, the slope is mostly noise.
MIN_CLIPS_FOR_SLOPE = 1000
# Files that a process that is killed at that moment leaves behind, besides those that the next one continues or replaces (docs/scale.md).
DOCUMENTED = re.compile(r"^\.writing-")


def step(text):
    print(f"test-soak: {text}", flush=True)


class Failed(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failed(message)


class Programs:
    """The commands, with paths relative to the directory in which they run."""

    def __init__(self, directory, clips):
        self.directory = directory
        self.manifest = clips / "manifest.csv"
        fixtures = ROOT / "fixtures"
        self.recipe = fixtures / "pipelines" / "tiny.toml"
        self.models = fixtures / "models"

    def extract(self, *arguments):
        return [self.directory / "kinoprobe-extract", "--method", "tiny", "--recipe", self.recipe, "--models", self.models,
                "--manifest", self.manifest, "--out", "tiny.h5", "--quiet", *arguments]

    def merge(self):
        return [self.directory / "kinoprobe-merge", "tiny.shards", "--out", "tiny.h5", "--quiet"]

    def status(self):
        return [self.directory / "kinoprobe-status", "tiny.shards", "--json"]

    def classify(self):
        return [self.directory / "kinoprobe-classify", "--features", "tiny.h5", "--manifest", self.manifest, "--recipe", self.recipe,
                "--out", "run", "--quiet"]


def start(command, directory, log):
    return subprocess.Popen([str(part) for part in command], cwd=directory, stdout=log, stderr=log)


def run(command, directory, code):
    """Runs a program to its end and checks its exit code. Returns the seconds that it took."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = start(command, directory, log)
        found = process.wait()
        log.seek(0)
        check(found == code, f"{command[0].name}: exit code {found}, not {code}: {log.read().decode(errors='replace')[-2000:]}")
    return time.monotonic() - began


def run_or_kill(command, directory, code, delay):
    """Runs a program, and kills it after `delay` seconds. Returns whether it was killed; otherwise checks its exit code, which may be a function."""
    with tempfile.TemporaryFile() as log:
        process = start(command, directory, log)
        try:
            found = process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
            found = process.wait()
        if found == KILLED:
            return True
        log.seek(0)
        code = code() if callable(code) else code
        check(found == code, f"{command[0].name}: exit code {found}, not {code}: {log.read().decode(errors='replace')[-2000:]}")
        return False


class Kills:
    """A number of kills, shared by threads."""

    def __init__(self, count):
        self.left, self.done, self.lock = count, 0, threading.Lock()

    def take(self):
        with self.lock:
            self.left -= 1
            return self.left >= 0

    def give_back(self):
        with self.lock:
            self.left = max(self.left, 0) + 1

    def count(self):
        with self.lock:
            self.done += 1


# Memory of one process --------------------------------------------------------------------------------------------------
class JournalReader:
    """Counts the clips in a journal that grows."""

    def __init__(self, path):
        self.path, self.position, self.clips = path, 8, 0

    def count(self):
        try:
            size = self.path.stat().st_size
            with open(self.path, "rb") as file:
                while size - self.position >= 24:
                    file.seek(self.position)
                    header = file.read(24)
                    length = int.from_bytes(header[:8], "little")
                    if self.position + 12 + length > size:
                        break
                    self.clips += header[12:].startswith((b'{"Clip"', b'{"Failure"'))
                    self.position += 12 + length
        except FileNotFoundError:
            pass
        return self.clips


def undisturbed(programs, directory, clips):
    """Extracts all clips with one process. Returns its seconds and the samples (clips, MiB)."""
    journal, samples = JournalReader(directory / "tiny.h5.partial"), []
    began = time.monotonic()
    with open(directory / "extract.log", "wb") as log:
        process = start(programs.extract(), directory, log)
        while process.poll() is None:
            try:
                pages = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError, IndexError):
                break
            samples.append((journal.count(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
            time.sleep(0.05)
        code = process.wait()
    check(code == SOME_FAILED, f"kinoprobe-extract: exit code {code}, not {SOME_FAILED}: see {log.name}")
    return time.monotonic() - began, [sample for sample in samples if 0 < sample[0] < clips]


def slope(samples, clips):
    """Slope of the memory in MiB per 1,000 clips and its standard error, after the first fifth of the clips, in which pools fill."""
    x, y = np.array([sample for sample in samples if sample[0] >= clips / 5]).T
    x = x / 1000
    deviation = x - x.mean()
    gradient = (deviation @ y) / (deviation @ deviation)
    residuals = y - y.mean() - gradient * deviation
    return gradient, np.sqrt(residuals @ residuals / max(1, len(x) - 2) / (deviation @ deviation))


# Stages -----------------------------------------------------------------------------------------------------------------
def extract_shards(programs, directory, shards, kills, seconds, seed):
    """Extracts the shards, two at a time, with kills. `seconds` is about the duration of a shard."""
    def extract(index):
        draw = random.Random(f"{seed} shard {index}")
        command = programs.extract("--shard", f"{index}/{shards}")
        left = -(-kills.total // shards)
        while True:
            delay = None
            if left > 0 and kills.take():
                delay = draw.uniform(0, 1.5 * seconds / (1 + -(-kills.total // shards)))
            if not run_or_kill(command, directory, lambda: expected_code(index), delay):
                if delay is not None:
                    kills.give_back()
                return
            kills.count()
            left -= 1

    def expected_code(index):
        plan = json.loads((directory / "tiny.shards" / "shards.json").read_text())
        return SOME_FAILED if any(shard == index and clip in programs.failed for clip, shard in plan["clips"]) else DONE

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(extract, range(shards)))
        # Processes that ended before they were to be killed: these shards are extracted again.
        draw = random.Random(f"{seed} more")
        while kills.left > 0:
            index = draw.randrange(shards)
            (directory / "tiny.shards" / f"{index:04}-of-{shards:04}.h5").unlink()
            extract(index)


def watch_status(programs, directory, stopped, seen):
    """Reads the status all the time. It must never fail, whatever the tasks do."""
    while not stopped.wait(0.3):
        if not (directory / "tiny.shards" / "shards.json").exists():
            continue
        output = subprocess.run(list(map(str, programs.status())), cwd=directory, capture_output=True, text=True)
        try:
            status = json.loads(output.stdout)
            consistent = status["done"] + status["failed"] + status["missing"] == status["clips"]
        except (ValueError, KeyError):
            consistent = False
        seen.append(None if output.returncode == 0 and consistent else f"exit code {output.returncode}: {output.stdout[-500:]}{output.stderr[-500:]}")


def killed_until_done(command, directory, output, code, kills, seconds, draw, after_kill):
    """Runs a program with kills at random moments of its duration, then to its end. Half of the times, `output` exists before."""
    while kills.left > 0:
        if draw.random() < 0.5:
            shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
        if run_or_kill(command, directory, code, draw.uniform(0, seconds)):
            kills.take()
            kills.count()
            after_kill()
    run(command, directory, code)


# Verdict ----------------------------------------------------------------------------------------------------------------
def equal_stores(left, right):
    """`True` if the stores are equal dataset for dataset. compare_stores.py compares directories."""
    with tempfile.TemporaryDirectory() as directory:
        for name, store in (("left", left), ("right", right)):
            path = pathlib.Path(directory) / name
            path.mkdir()
            (path / "tiny.h5").symlink_to(store.resolve())
        command = [sys.executable, HERE.parent / "compare_stores.py", f"{directory}/left", f"{directory}/right"]
        output = subprocess.run(command, capture_output=True, text=True)
        if output.returncode != 0:
            print("\n".join(line for line in output.stdout.splitlines() if "DIFFERS" in line), file=sys.stderr)
        return output.returncode == 0


def read_csv(file):
    with open(file, newline="") as rows:
        return list(csv.DictReader(rows))


def verdict_on_clips(store, clips):
    """Checks that each clip has features, or a failure with its reason. Returns what became of each kind of damage."""
    with h5py.File(store) as file:
        extracted = file["clips/id"].asstr()[:].tolist()
        failures = dict(zip(file["failures/id"].asstr()[:], file["failures/error"].asstr()[:]))
        check(np.isfinite(file["features"][:]).all(), f"{store}: features that are not finite")
        check((file["clips/length"][:] > 0).all(), f"{store}: a clip without rows")
    listed = [row["id"] for row in read_csv(clips / "manifest.csv")]
    damaged = {row["id"]: row for row in read_csv(clips / "damaged.csv")}
    check(len(extracted) == len(set(extracted)), f"{store}: a clip occurs twice")
    check(set(extracted).isdisjoint(failures), f"{store}: a clip has features and a failure")
    check(set(extracted) | set(failures) == set(listed), f"{store}: clips are missing: {set(listed) - set(extracted) - set(failures)}")
    check([clip for clip in listed if clip not in failures] == extracted, f"{store}: not in the order of the manifest")
    check(all(reason.strip() for reason in failures.values()), f"{store}: a failure without a reason")
    unexpected = {clip: reason for clip, reason in failures.items() if clip not in damaged}
    check(not unexpected, f"{store}: sound clips failed: {unexpected}")
    kinds = {}
    for clip, row in damaged.items():
        check(clip in failures or row["must_fail"] == "0", f"{store}: {clip} ({row['damage']}) cannot have features")
        kinds.setdefault(row["damage"], [0, 0])[clip in failures] += 1
    return kinds, failures


def verdict_on_files(directory, shards):
    """Checks that only results remain."""
    expected = {"shards.json"} | {f"{index:04}-of-{shards:04}.h5" for index in range(shards)}
    documented = []
    for place, names in ((directory / "tiny.shards", expected), (directory, {"tiny.shards", "tiny.h5", "run"})):
        for name in sorted({file.name for file in place.iterdir()} - names):
            check(DOCUMENTED.match(name), f"{place / name} remains")
            documented.append(name)
        missing = names - {file.name for file in place.iterdir()}
        check(not missing, f"{place}: {sorted(missing)} are missing")
    return documented


def soak(arguments, work):
    clips, single, sharded = work / "clips", work / "single", work / "sharded"
    step(f"{arguments.clips} clips, seed {arguments.seed}, in {work}")
    began = time.monotonic()
    generate = [sys.executable, HERE / "clips.py", clips, "--clips", arguments.clips, "--seed", arguments.seed, "--jobs", 2]
    if not (clips / "damaged.csv").exists():
        subprocess.run([str(part) for part in generate], check=True)
    programs = Programs(arguments.programs.resolve(), clips)
    kinds = {row["path"].rsplit(".", 1)[-1] for row in read_csv(clips / "manifest.csv") if "." in row["path"]}
    step(f"generated in {time.monotonic() - began:.0f} s: {', '.join(sorted(kinds))}")
    for directory in (single, sharded):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)

    seconds, samples = undisturbed(programs, single, arguments.clips)
    damages, failures = verdict_on_clips(single / "tiny.h5", clips)
    programs.failed = set(failures)
    step(f"undisturbed: {seconds:.1f} s, {len(failures)} clips failed, memory at most {max(y for _, y in samples):.0f} MiB")
    for damage, (decoded, failed) in sorted(damages.items()):
        step(f"  {damage}: {failed} failed" + (f", {decoded} decoded" if decoded else ""))
    gradient, error = slope(samples, arguments.clips)
    step(f"memory: {gradient:+.2f} ± {error:.2f} MiB per 1,000 clips ({len(samples)} samples, least squares, without the first fifth)")
    check(arguments.clips < MIN_CLIPS_FOR_SLOPE or gradient - 2 * error < MAX_SLOPE, f"memory grows by more than {MAX_SLOPE} MiB per 1,000 clips")
    run(programs.classify(), single, DONE)

    kills = {stage: Kills(count) for stage, count in zip(("extract", "merge", "classify"), distribute(arguments.kills))}
    for stage in kills.values():
        stage.total = stage.left
    stopped, seen = threading.Event(), []
    watcher = threading.Thread(target=watch_status, args=(programs, sharded, stopped, seen))
    watcher.start()
    try:
        began = time.monotonic()
        extract_shards(programs, sharded, arguments.shards, kills["extract"], 2 * seconds / arguments.shards, arguments.seed)
        step(f"{arguments.shards} shards with {kills['extract'].done} kills: {time.monotonic() - began:.1f} s")
        merged = sharded / "tiny.h5"
        merge_code = SOME_FAILED if failures else DONE
        seconds = run(programs.merge(), sharded, merge_code)

        def whole_or_absent():
            check(not merged.exists() or equal_stores(single / "tiny.h5", merged), f"{merged} is incomplete after a kill")

        draw = random.Random(f"{arguments.seed} merge")
        killed_until_done(programs.merge(), sharded, merged, merge_code, kills["merge"], seconds, draw, whole_or_absent)
        step(f"merge with {kills['merge'].done} kills")
    finally:
        stopped.set()
        watcher.join()
    check(not any(seen), f"kinoprobe-status: {[problem for problem in seen if problem][:3]}")
    step(f"status read {len(seen)} times meanwhile")
    check(seen, "the status was not read")
    check(equal_stores(single / "tiny.h5", merged), "the merged store differs from that of the undisturbed run")
    verdict_on_clips(merged, clips)
    step("the merged store equals that of the undisturbed run, dataset for dataset")

    seconds = run(programs.classify(), sharded, DONE)

    def complete_or_marked():
        found = compare_runs.differences(single / "run", sharded / "run") if (sharded / "run/metrics.json").exists() else []
        check(not found, f"metrics.json of an incomplete run after a kill: {found}")

    draw = random.Random(f"{arguments.seed} classify")
    killed_until_done(programs.classify(), sharded, sharded / "run", DONE, kills["classify"], seconds, draw, complete_or_marked)
    found = compare_runs.differences(single / "run", sharded / "run")
    check(not found, f"the runs differ: {found}")
    step(f"classify with {kills['classify'].done} kills; the run equals the undisturbed one")
    documented = verdict_on_files(sharded, arguments.shards)
    step("no temporary files remain" + (f", except {len(documented)} documented ones: {documented}" if documented else ""))
    check(sum(stage.done for stage in kills.values()) == arguments.kills, "not all kills were made")


def distribute(kills):
    """Kills of extraction, merge and training: the extraction has the longest time."""
    short = kills // 5
    return kills - 2 * short, short, short


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=pathlib.Path, metavar="PROGRAMS", help="directory of the programs")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=pathlib.Path, help="directory of the clips and results, which are kept [default: a temporary one]")
    arguments = parser.parse_args()
    if arguments.clips < 100:
        parser.error("--clips: at least 100, so that there are clips of all kinds")
    work = (arguments.work or pathlib.Path(tempfile.mkdtemp(prefix="kinoprobe-soak-"))).resolve()
    began = time.monotonic()
    try:
        soak(arguments, work)
    except Failed as failure:
        print(f"test-soak: FAILED: {failure}; the files are kept in {work}", file=sys.stderr)
        raise SystemExit(1)
    if not arguments.work:
        shutil.rmtree(work)
    step(f"passed in {(time.monotonic() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
