"""The stages shards and merge: what it costs to split an extraction into shards, and to merge them."""
import csv
import shutil
import sys

import h5py
import numpy as np

from process import PEER, WORK, Process
from training import alternate

STAGES = ["shards", "merge"]
COUNTS = (1, 2, 4, 8)
# Goal: wall time over that of one process.
MAX_OVERHEAD = 0.03
ROWS, FEATURES, MERGED = 5, 1024, 10


class Sequence:
    """Processes that ran one after the other, as one."""

    def __init__(self, processes):
        self.wall, self.cpu = (sum(getattr(process, name) for process in processes) for name in ("wall", "cpu"))
        self.memory = max(process.memory for process in processes)
        self.output = {"merge": processes[-1].wall}


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def shards(bench):
    """All shards of cnn3d one after the other, each with all cores, and their merge, against one process for all clips: the difference is
    the start of each process and the merge. It matters less if there are more clips (--clips 90 --windows 5)."""
    manifest, clips = bench.manifest()
    bench.model("cnn3d")
    single, merged = WORK / "single.h5", WORK / "merged.h5"
    directory = merged.with_suffix(".shards")

    def extract(out, *shard):
        command = [bench.binaries / "kinoprobe-extract", "--method", "cnn3d", "--weights", "seeded", "--manifest", manifest]
        return Process([*command, "--count", bench.arguments.windows, "--out", out, "--quiet", *shard])

    def one():
        remove(single)
        return extract(single)

    def split(count):
        remove(merged)
        if directory.exists():
            remove(directory)
        parts = [extract(merged, "--shard", f"{index}/{count}") for index in range(count)]
        return Sequence([*parts, Process([bench.binaries / "kinoprobe-merge", directory, "--out", merged, "--quiet"])])

    rounds = []
    for _ in range(bench.arguments.rounds):
        rounds.append((one(), [split(count) for count in COUNTS]))
        with h5py.File(single) as a, h5py.File(merged) as b:
            for name in ("features", "clips/id", "clips/offset", "pooled/mean", "rows/start_seconds"):
                if not np.array_equal(a[name][:], b[name][:]):
                    raise SystemExit(f"bench: shards: {name} of the merged shards differs from the store of one process")
    for index, count in enumerate(COUNTS):
        pairs = [(splits[index], one, None) for one, splits in rounds]
        merge_seconds = float(np.median([ours.output["merge"] for ours, *_ in pairs]))
        notes = {"clips": clips, "windows": bench.arguments.windows, "merge_seconds": merge_seconds}
        bench.record(f"shards-{count}", "s", pairs, lambda run: run.wall, higher=False, notes=notes)
        overhead = bench.results[-1]["ours"] / bench.results[-1]["peer"] - 1
        if overhead > MAX_OVERHEAD:
            bench.log(f"shards-{count}: {100 * overhead:.1f} % more than one process; the goal is {100 * MAX_OVERHEAD:.0f} %")


def generate(bench):
    """The shards of a generated extraction: a store of one clip, with other clips and features."""
    clips = bench.arguments.merge_clips
    directory = WORK / f"merge-{clips}"
    names = [directory / f"{index}.h5" for index in range(MERGED)]
    if all(name.exists() for name in names):
        return names
    directory.mkdir(exist_ok=True)
    manifest, _ = bench.manifest()
    with open(manifest, newline="") as file:
        first = next(csv.DictReader(file))
    one, template = manifest.with_name("bench-one.csv"), WORK / "template.h5"
    one.write_text(f"id,path,label\n{first['id']},{first['path']},{first['label']}\n")
    bench.model("cnn")
    remove(template)
    command = [bench.binaries / "kinoprobe-extract", "--method", "cnn", "--weights", "seeded", "--manifest", one, "--out", template]
    Process([*command, "--frames", ROWS, "--quiet"])
    random = np.random.default_rng(0)
    for index, name in enumerate(names):
        ids = [f"clip{i:08}" for i in range(clips * index // MERGED, clips * (index + 1) // MERGED)]
        partial = name.with_suffix(".partial")
        with h5py.File(template) as source, h5py.File(partial, "w") as target:
            target.attrs.update(source.attrs)
            copy_structure(source, target, len(ids))
            offsets = np.arange(len(ids)) * ROWS
            target["clips/id"][:], target["clips/path"][:], target["clips/offset"][:] = ids, ids, offsets
            target["rows/clip"][:] = np.repeat(np.arange(len(ids)), ROWS)
            for start in range(0, len(ids), 4096):
                end = min(start + 4096, len(ids))
                values = random.standard_normal((end - start, ROWS, FEATURES), dtype=np.float32)
                # Half of the bits are zero, so that a million clips need 10 GB.
                values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
                target["features"][start * ROWS:end * ROWS] = values.reshape(-1, FEATURES)
                target["pooled/mean"][start:end], target["pooled/max"][start:end] = values.mean(axis=1), values.max(axis=1)
        partial.rename(name)
    return names


def copy_structure(source, target, clips):
    """Creates the datasets of a store for another number of clips, with the values of its first clip where these do not matter."""
    def create(name, dataset):
        if not isinstance(dataset, h5py.Dataset):
            return
        length = 0 if name.startswith("failures/") else clips if name.startswith(("clips/", "pooled/")) else clips * ROWS
        shape = (length, *dataset.shape[1:])
        target.create_dataset(name, shape, dataset.dtype, maxshape=(None, *shape[1:]), chunks=dataset.chunks,
            compression=dataset.compression, compression_opts=dataset.compression_opts, shuffle=dataset.shuffle)
        if length and dataset.ndim == 1 and name not in ("clips/id", "clips/path"):
            first = dataset[:ROWS] if name.startswith("rows/") else dataset[:1]
            target[name][:] = np.tile(first, length // len(first))
    source.visititems(create)


def merge(bench):
    """The merge of ten generated stores of 5 rows of 1024 features per clip, against the concatenation of their datasets with h5py."""
    sources = generate(bench)
    ours, peer = WORK / "merge-ours.h5", WORK / "merge-peer.h5"

    def run(out, command):
        remove(out)
        return Process(command)

    rounds = alternate(
        bench,
        lambda: run(ours, [bench.binaries / "kinoprobe-merge", *sources, "--out", ours, "--quiet"]),
        lambda: run(peer, [sys.executable, PEER / "merge.py", *sources, "--out", peer]),
    )
    with h5py.File(ours) as a, h5py.File(peer) as b:
        rows = np.sort(np.random.default_rng(1).choice(len(b["features"]), 1000, replace=False))
        for name in ("clips/id", "clips/offset", "rows/clip"):
            if not np.array_equal(a[name][:], b[name][:]):
                raise SystemExit(f"bench: merge: {name} of the two sides differs")
        if not np.array_equal(a["features"][rows], b["features"][rows]):
            raise SystemExit("bench: merge: the features of the two sides differ")
    for out in (ours, peer):
        remove(out)
    bench.record("merge", "s", rounds, lambda run: run.wall, higher=False, notes={"clips": bench.arguments.merge_clips})


def run(bench, stage):
    shards(bench) if stage == "shards" else merge(bench)
