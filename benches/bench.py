"""Speed against the Python peer: both sides interleaved on the same clips and the same ONNX files.

Run by benches/run.sh (`make bench`). Prints per stage wall and CPU seconds, peak memory of the process tree, throughput,
the ratio with its spread (above 1: ours is faster) and the share of the sgemm ceiling; writes target/bench/latest.json
and BENCHMARKS.md. A speed is only believed after the two sides' features agree.
"""
import argparse
import csv
import hashlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import threading
import time

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = TARGET / "bench"
PEER = ROOT / "benches" / "peer"
CARDS = {"cnn": "convnext_base", "cnn3d": "r2plus1d_18"}
# 2 FLOP a multiply-accumulate, as torchvision counts them: 15.355 and 40.519 GMAC.
GFLOP = {"cnn": 30.71, "cnn3d": 81.04}
BATCH = {"cnn": 2, "cnn3d": 1}
STAGES = ["sift", "cnn", "cnn3d", "kmeans", "mlp", "bilstm"]
COSINE = 0.999


class Run:
    """One finished process: wall and CPU seconds, peak memory of its tree in MiB, and the JSON it printed."""

    def __init__(self, command):
        begun = time.perf_counter()
        environment = os.environ | {"HDF5_USE_FILE_LOCKING": "FALSE"}
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment
        )
        self.memory = 0.0
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(process.pid, done))
        watch.start()
        errors = []
        drain = threading.Thread(target=lambda: errors.append(process.stderr.read()))
        drain.start()
        out = process.stdout.read()
        drain.join()
        _, status, usage = os.wait4(process.pid, 0)
        self.wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        watch.join()
        self.cpu = usage.ru_utime + usage.ru_stime
        if process.returncode != 0:
            shown = b"".join(errors).decode(errors="replace")[-2000:]
            raise SystemExit(f"bench: {' '.join(map(str, command))} ended with {process.returncode}\n{shown}")
        lines = [line for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
        self.said = json.loads(lines[-1]) if lines else {}

    def _watch(self, pid, done):
        while not done.wait(0.2):
            self.memory = max(self.memory, sum(pss(member) for member in tree(pid)) / 1024)


def tree(pid):
    """A process and its descendants."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
        below = [int(child) for file in children for child in file.read_text().split()]
    except OSError:
        below = []
    return [pid] + [member for child in below for member in tree(child)]


def pss(pid):
    """Memory in KiB, pages that several processes share counted once between them."""
    try:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def sgemm_ceiling(size=2048, repeats=4):
    """GFLOP/s of numpy's f32 matrix product on all cores, the best of a few."""
    a, b = (np.random.default_rng(0).standard_normal((size, size), np.float32) for _ in range(2))
    best = 0.0
    for _ in range(repeats):
        begun = time.perf_counter()
        a @ b
        best = max(best, 2e-9 * size**3 / (time.perf_counter() - begun))
    return best


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(norms > 0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1), 1.0)


def agreement(stage, ours, peer):
    """The least cosine of corresponding embeddings; of descriptors, summed over each frame, the mean cosine: the two sides
    link different builds of OpenCV and FFmpeg, and which keypoint is the 32nd strongest may hang on a bit."""
    with h5py.File(ours) as a, h5py.File(peer) as b:
        if stage == "sift":
            sums = []
            for file in (a, b):
                ends = np.cumsum(file["rows/descriptors"][:].astype(np.int64))
                values = np.concatenate([np.zeros((1, 128)), np.cumsum(file["descriptors"][:].astype(np.float64), axis=0)])
                sums.append(np.diff(values[np.concatenate([[0], ends])], axis=0))
            a_rows, b_rows = sums
        else:
            a_rows, b_rows = a["features"][:], b["features"][:]
        if a_rows.shape != b_rows.shape:
            raise SystemExit(f"bench: {stage}: ours has {a_rows.shape} rows, the peer {b_rows.shape}")
        rows = cosine(a_rows, b_rows)
        return float(rows.mean() if stage == "sift" else rows.min())


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.binaries = pathlib.Path(arguments.binaries or TARGET / "release")
        self.fastest = json.loads((PEER / "fastest.json").read_text())
        self.ceilings = []
        self.results = []
        WORK.mkdir(parents=True, exist_ok=True)

    def say(self, text):
        print(text, flush=True)

    def manifest(self):
        """The first clips of each class in turn."""
        source = pathlib.Path(self.arguments.clips_from).resolve()
        with open(source / "manifest.csv", newline="") as file:
            clips = list(csv.DictReader(file))
        classes = {}
        for clip in clips:
            classes.setdefault(clip["label"], []).append(clip)
        turns = max(map(len, classes.values()))
        ordered = [members[turn] for turn in range(turns) for members in classes.values() if turn < len(members)]
        chosen = ordered[: self.arguments.clips]
        path = source / f"bench-{len(chosen)}.csv"
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "path", "label"])
            writer.writerows([clip["id"], clip["path"], clip["label"]] for clip in chosen)
        return path, len(chosen)

    def model(self, stage):
        """The ONNX file that kinoprobe made of seeded weights: the one file that both sides run."""
        card = CARDS[stage]
        Run([self.binaries / "kinoprobe-models", "fetch", card, "--weights", "seeded", "--quiet"])
        files = sorted((ROOT / "models").glob(f"{card}-seeded-*.onnx"), key=lambda file: file.stat().st_mtime)
        return files[-1]

    def ours(self, stage, manifest, out):
        out.unlink(missing_ok=True)
        sampling = {"cnn": ["--frames", self.arguments.frames], "cnn3d": ["--count", self.arguments.windows]}
        weights = ["--weights", "seeded"] if stage in CARDS else []
        command = [self.binaries / "kinoprobe-extract", "--method", stage, "--manifest", manifest, "--out", out, "--quiet"]
        return Run(command + weights + sampling.get(stage, []))

    def peer(self, stage, manifest, out, model, configuration):
        out.unlink(missing_ok=True)
        command = [sys.executable, PEER / "features.py", "--method", stage, "--manifest", manifest, "--out", out]
        command += ["--workers", configuration["workers"]]
        command += {"sift": ["--frames", 32], "cnn": ["--frames", self.arguments.frames], "cnn3d": ["--windows", self.arguments.windows]}[stage]
        if stage in CARDS:
            command += ["--model", model, "--engine", configuration["engine"], "--batch", BATCH[stage]]
            command += ["--torchvision"] if self.arguments.torchvision else []
        return Run(command)

    def extraction(self, stage):
        manifest, clips = self.manifest()
        model = self.model(stage) if stage in CARDS else None
        out = {side: WORK / f"{stage}.{side}.h5" for side in ("ours", "peer")}
        rounds = []
        for number in range(self.arguments.rounds):
            self.ceilings.append(sgemm_ceiling())
            # Who goes first changes from round to round.
            pair = {}
            for side in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
                if side == "ours":
                    pair[side] = self.ours(stage, manifest, out[side])
                else:
                    pair[side] = self.peer(stage, manifest, out[side], model, self.fastest[stage])
            agree = agreement(stage, out["ours"], out["peer"])
            if agree < COSINE:
                raise SystemExit(f"bench: {stage}: the features differ (cosine {agree:.5f}): no speed is believed")
            if model is not None:
                with h5py.File(out["ours"]) as file:
                    ran, provider = file.attrs["model_sha256"], file.attrs["provider"]
                if ran != hashlib.sha256(model.read_bytes()).hexdigest():
                    raise SystemExit(f"bench: {stage}: ours ran another model than {model.name}")
            else:
                provider = "opencv"
            rounds.append((pair["ours"], pair["peer"], agree))
        items = rounds[0][1].said["items"]
        notes = {
            "clips": clips,
            "items": items,
            "peer_configuration": self.fastest[stage],
            "provider": provider,
            "peer_imports": statistics.median(run.said["imports"] for _, run, _ in rounds),
            "peer_loading": statistics.median(run.said["loading"] for _, run, _ in rounds),
        }
        self.record(stage, "clips/s", rounds, lambda run: clips / run.wall, higher=True, notes=notes)

    def executable(self, name):
        flags = os.environ.get("CARGOFLAGS", "").split()
        command = ["cargo", "build", "--release", "--quiet", "--bench", name, "--message-format", "json", *flags]
        built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        messages = map(json.loads, built.stdout.splitlines())
        return [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name][-1]

    def descriptors(self):
        """Up to 200,000 SIFT descriptors of the clips, raw bytes."""
        file = WORK / "descriptors.u8"
        if not file.exists():
            source = pathlib.Path(self.arguments.clips_from).resolve() / "manifest.csv"
            store = WORK / "descriptors.h5"
            Run([sys.executable, PEER / "features.py", "--method", "sift", "--manifest", source, "--out", store,
                 "--workers", os.cpu_count(), "--frames", 16, "--keypoints", 300])
            with h5py.File(store) as made:
                values = made["descriptors"][:]
            keep = np.sort(np.random.default_rng(0).permutation(len(values))[:200_000])
            values[keep].tofile(file)
        return file

    def kmeans(self):
        data = self.descriptors()
        executable = self.executable("kmeans")
        rounds = []
        for number in range(self.arguments.rounds):
            seed = ["--seed", number]
            ours, peer = Run([executable, data, *seed]), Run([sys.executable, PEER / "kmeans.py", data, *seed])
            rounds.append((ours, peer, None))
        inertia = [statistics.mean(run.said["inertia"] for run in side) for side in list(zip(*rounds))[:2]]
        if inertia[0] > 1.005 * inertia[1]:
            raise SystemExit(f"bench: kmeans: our inertia is {inertia[0]:.4g}, the peer's {inertia[1]:.4g}")
        notes = {"rows": rounds[0][0].said["rows"], "inertia_ratio": inertia[0] / inertia[1],
                 "iterations": [[run.said["iterations"] for run in pair[:2]] for pair in rounds]}
        self.record("kmeans", "s", rounds, lambda run: run.said["seconds"], higher=False, notes=notes)

    def training(self, stage):
        """An epoch, or a step, on one thread: benches/STAGE.rs against PyTorch in benches/peer/STAGE.py."""
        if not self.arguments.torch:
            self.say(f"{stage}: skipped, the peer needs PyTorch: run with PEER=torch")
            return
        unit = {"mlp": "epoch", "bilstm": "step"}[stage]
        executable = self.executable(stage)
        commands = ([executable, "--threads", 1], [sys.executable, PEER / f"{stage}.py", "--threads", 1])
        rounds = [(*map(Run, commands), None) for _ in range(self.arguments.rounds)]
        notes = {"cpu_ratio": statistics.median(p.said[f"{unit}_cpu"] / o.said[f"{unit}_cpu"] for o, p, _ in rounds)}
        if stage == "mlp":
            notes["val_accuracy"] = [min(run.said["val_accuracy"] for run in side) for side in list(zip(*rounds))[:2]]
        self.record(stage, f"s/{unit}", rounds, lambda run: run.said[f"{unit}_wall"], higher=False, notes=notes)

    def record(self, name, unit, rounds, measure, higher, notes):
        ours, peer = ([measure(pair[side]) for pair in rounds] for side in (0, 1))
        ratios = [(a / b if higher else b / a) for a, b in zip(ours, peer)]
        median = lambda of: [statistics.median(of(pair[side]) for pair in rounds) for side in (0, 1)]
        result = {
            "name": name,
            "unit": unit,
            "ours": statistics.median(ours),
            "peer": statistics.median(peer),
            "ratio": statistics.median(ratios),
            "rounds": len(rounds),
            "cosine": min((pair[2] for pair in rounds), default=None) if rounds[0][2] is not None else None,
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "wall_seconds": median(lambda run: run.wall),
            "cpu_seconds": median(lambda run: run.cpu),
            "peak_mib": median(lambda run: run.memory),
        }
        if name in GFLOP:
            ceiling = max(self.ceilings)
            result["ceiling_share"] = [GFLOP[name] * notes["items"] / wall / ceiling for wall in result["wall_seconds"]]
        result |= notes
        self.results.append(result)
        self.say(line(result))

    def calibrate(self):
        """Finds the peer's fastest configuration of each method."""
        manifest, _ = self.manifest()
        fastest = {}
        for stage in [stage for stage in self.arguments.stages if stage in ("sift", *CARDS)]:
            model = self.model(stage) if stage in CARDS else None
            engines = ["ort", "openvino"] if stage in CARDS else [None]
            tried = [{"engine": engine, "workers": workers} for engine in engines for workers in (1, 2)]
            walls = {number: [] for number in range(len(tried))}
            for _ in range(self.arguments.rounds):
                for number, configuration in enumerate(tried):
                    run = self.peer(stage, manifest, WORK / f"{stage}.peer.h5", model, configuration)
                    walls[number].append(run.wall)
            for number, configuration in enumerate(tried):
                self.say(f"{stage}: {configuration}: {statistics.median(walls[number]):.2f} s")
            fastest[stage] = tried[min(walls, key=lambda number: statistics.median(walls[number]))]
        known = self.fastest | fastest
        (PEER / "fastest.json").write_text(json.dumps(known, indent=2) + "\n")

    def run(self):
        for stage in self.arguments.stages:
            if stage in ("sift", *CARDS):
                self.extraction(stage)
            elif stage == "kmeans":
                self.kmeans()
            else:
                self.training(stage)
            # After each stage: a run that is cut short keeps what it measured.
            (WORK / "latest.json").write_text(json.dumps(self.results, indent=2) + "\n")
            (ROOT / "BENCHMARKS.md").write_text(self.report())
        self.say(f"{WORK / 'latest.json'}\n{ROOT / 'BENCHMARKS.md'}")

    def report(self):
        cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
        memory = next(int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemTotal")) / 2**20
        head = [
            "# Benchmarks",
            "",
            f"`make bench` on {time.strftime('%Y-%m-%d')}: {cpu}, {os.cpu_count()} cores, {memory:.0f} GiB; {platform.system()}"
            f" {platform.release()}, Python {platform.python_version()}."
            + (f" sgemm ceiling {max(self.ceilings):.0f} GFLOP/s (numpy, all cores)." if self.ceilings else ""),
            "Whole processes, start to end, ours and the Python peer's (`benches/peer/`) in turn on the same clips and ONNX",
            "files; medians over rounds. A ratio above 1 means that ours is faster; its spread is over the rounds.",
            "",
            "| stage | unit | ours | peer | ratio (spread) | wall s | CPU s | peak MiB | memory ratio | share of ceiling | cosine |",
            "|-|-|-:|-:|-:|-:|-:|-:|-:|-:|-:|",
        ]
        pair = lambda values, digits: " / ".join(f"{value:.{digits}f}" for value in values)
        rows = [
            f"| {r['name']} | {r['unit']} | {r['ours']:.3g} | {r['peer']:.3g} | {r['ratio']:.2f} ({r['ratio_min']:.2f}–{r['ratio_max']:.2f})"
            f" | {pair(r['wall_seconds'], 1)} | {pair(r['cpu_seconds'], 1)} | {pair(r['peak_mib'], 0)} | {r['peak_mib'][0] / max(r['peak_mib'][1], 1):.2f}"
            f" | {pair([100 * s for s in r['ceiling_share']], 0) + ' %' if 'ceiling_share' in r else ''} | {'' if r['cosine'] is None else format(r['cosine'], '.5f')} |"
            for r in self.results
        ]
        tail = ["", "Pairs are ours / peer. What was run:", ""]
        keys = ("clips", "items", "rows", "provider", "peer_configuration", "peer_imports", "peer_loading", "inertia_ratio", "iterations", "cpu_ratio", "val_accuracy")
        for r in self.results:
            facts = ", ".join(f"{key} {round(r[key], 3) if isinstance(r[key], float) else r[key]}" for key in keys if key in r)
            tail.append(f"- {r['name']}: {r['rounds']} rounds, {facts}")
        return "\n".join(head + rows + tail) + "\n"


def line(r):
    share = f", {100 * r['ceiling_share'][0]:.0f} / {100 * r['ceiling_share'][1]:.0f} % of sgemm" if "ceiling_share" in r else ""
    return (
        f"{r['name']:7} ours {r['ours']:8.3f} peer {r['peer']:8.3f} {r['unit']}: ratio {r['ratio']:.2f} ({r['ratio_min']:.2f}-{r['ratio_max']:.2f}); "
        f"wall {r['wall_seconds'][0]:.1f} / {r['wall_seconds'][1]:.1f} s, CPU {r['cpu_seconds'][0]:.1f} / {r['cpu_seconds'][1]:.1f} s, "
        f"peak {r['peak_mib'][0]:.0f} / {r['peak_mib'][1]:.0f} MiB{share}"
        + (f", cosine {r['cosine']:.5f}" if r["cosine"] is not None else "")
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips-from", required=True, help="folder with manifest.csv, as kinoprobe-demo makes it")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of " + " ".join(STAGES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=4, help="frames a clip of the stage cnn")
    parser.add_argument("--windows", type=int, default=1, help="windows a clip of the stage cnn3d")
    parser.add_argument("--calibrate", action="store_true", help="find the peer's fastest configuration and stop")
    parser.add_argument("--torch", action="store_true", help="PyTorch is there: the stages mlp and bilstm too")
    parser.add_argument("--torchvision", action="store_true", help="the peer prepares frames by torchvision's transforms, which are slower than its own")
    parser.add_argument("--binaries", help="folder of the kinoprobe binaries")
    arguments = parser.parse_args()
    arguments.stages = arguments.stages.replace(",", " ").split()
    unknown = set(arguments.stages) - set(STAGES)
    if unknown:
        parser.error(f"unknown stages: {', '.join(sorted(unknown))}; there are {' '.join(STAGES)}")
    bench = Bench(arguments)
    bench.calibrate() if arguments.calibrate else bench.run()


if __name__ == "__main__":
    main()
