"""Measures kinoprobe against an equivalent Python implementation (the peer), in alternation, on the same clips and ONNX files.

Run by benches/run.sh (`make bench`). Prints for each stage the wall and CPU time, the peak memory of the process tree, the
throughput, the speedup over the peer with its range, and the share of the peak sgemm throughput. Writes target/bench/latest.json
and BENCHMARKS.md. Fails if the features of the two sides disagree.
"""
import argparse
import csv
import hashlib
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time

import h5py
import numpy as np

import compare
import dense_sift
import shallow
import shards
import training
from process import PEER, ROOT, TARGET, WORK, Process

# By method: the card of its network, the weights, the two FLOPs per multiply-accumulate (`kinoprobe-models profile`; torchvision documents
# 15.355 and 40.519 GMACs for the first two), and the batch of the peer.
CARDS = {"cnn": "convnext_base", "cnn3d": "r2plus1d_18", "effnet": "efficientnet_lite2", "clip": "clip_vit_b32"}
WEIGHTS = {"cnn": "seeded", "cnn3d": "seeded", "effnet": "registry", "clip": "seeded"}
GFLOP = {"cnn": 30.71, "cnn3d": 81.04, "effnet": 1.717, "clip": 8.818}
BATCH = {"cnn": 2, "cnn3d": 1, "effnet": 4, "clip": 8}
AVX2 = "-avx2"
AVX2_STAGES = [method + AVX2 for method in CARDS]
INT8 = "-int8"
INT8_STAGES = [method + INT8 for method in CARDS]
# Items that both sides calibrate with.
INT8_ITEMS = 64
# The extraction with a network; those with AVX2 need a processor without AVX-512 (see `needs_avx2`), those in int8 NNCF.
NETWORK_STAGES = ["cnn", "cnn3d", *AVX2_STAGES, *INT8_STAGES]
STAGES = ["sift", dense_sift.STAGE, *NETWORK_STAGES, "long", "kmeans", *shallow.STAGES, compare.STAGE, *shards.STAGES, *training.STAGES]
MIN_COSINE = 0.999
# Of int8 with f32.
MIN_INT8_COSINE = 0.99


def peak_sgemm(size=2048, repeats=4):
    """GFLOP/s of NumPy's f32 matrix product on all cores, the maximum over the repeats."""
    a, b = (np.random.default_rng(0).standard_normal((size, size), np.float32) for _ in range(2))
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best = max(best, 2e-9 * size**3 / (time.perf_counter() - start))
    return best


def method_of(stage):
    """The method of kinoprobe-extract that a stage measures."""
    return stage.removesuffix(AVX2).removesuffix(INT8)


def processor_flags():
    return next((l.split(":")[1].split() for l in open("/proc/cpuinfo") if l.startswith("flags")), [])


def has_vnni():
    """Whether int8 is faster than Winograd's algorithm in f32, as `kinoprobe-models quantize` reports it."""
    return not {"avx_vnni", "avx512_vnni", "amx_int8"}.isdisjoint(processor_flags())


def needs_avx2(stage):
    """The reason why a stage with AVX2 cannot be measured on this processor, or nothing.

    OpenVINO 2026.4 cannot be limited to AVX2: ONEDNN_MAX_CPU_ISA and OV_CPU_MAX_ISA apply to oneDNN and to its own kernels, but the matrix
    products of MLAS (the linear layers of ConvNeXt and CLIP) select AVX-512 by CPUID."""
    flags = processor_flags()
    if not stage.endswith(AVX2) or ("avx2" in flags and "avx512f" not in flags):
        return ""
    if "avx2" not in flags:
        return "this processor has no AVX2"
    return "this processor has AVX-512, and OpenVINO, the peer, cannot be limited to AVX2"


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(norms > 0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1), 1.0)


def agreement(stage, ours, peer):
    """The minimum cosine similarity of corresponding embeddings. For SIFT, the mean cosine similarity of the descriptors summed over
    each frame: the two sides link different builds of OpenCV and FFmpeg, whose rounding may decide which keypoint is the 32nd."""
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
            raise SystemExit(f"bench: {stage}: kinoprobe's features have shape {a_rows.shape}, the peer's {b_rows.shape}")
        rows = cosine(a_rows, b_rows)
        return float(rows.mean() if stage == "sift" else rows.min())


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.binaries = pathlib.Path(arguments.binaries or TARGET / "release")
        self.fastest = json.loads((PEER / "fastest.json").read_text())
        self.peaks = []
        self.results = []
        WORK.mkdir(parents=True, exist_ok=True)

    def log(self, text):
        print(text, flush=True)

    def manifest(self):
        """Writes a manifest with the first clips of each class, round-robin, and returns its path and number of clips."""
        source = pathlib.Path(self.arguments.clips_from).resolve()
        with open(source / "manifest.csv", newline="") as file:
            clips = list(csv.DictReader(file))
        classes = {}
        for clip in clips:
            classes.setdefault(clip["label"], []).append(clip)
        longest = max(map(len, classes.values()))
        ordered = [members[i] for i in range(longest) for members in classes.values() if i < len(members)]
        selected = ordered[: self.arguments.clips]
        path = source / f"bench-{len(selected)}.csv"
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "path", "label"])
            writer.writerows([clip["id"], clip["path"], clip["label"]] for clip in selected)
        return path, len(selected)

    def model(self, stage):
        """The ONNX file that both sides run."""
        card, weights = CARDS[method_of(stage)], WEIGHTS[method_of(stage)]
        Process([self.binaries / "kinoprobe-models", "fetch", card, "--weights", weights, "--quiet"])
        # Not those in fp16 or int8.
        name = re.compile(rf"{card}-{weights}-[0-9a-f]+-v\d+\.onnx")
        files = [file for file in (ROOT / "models").iterdir() if name.fullmatch(file.name)]
        return max(files, key=lambda file: file.stat().st_mtime)

    def int8_models(self, stage, manifest, model):
        """The networks in int8 of the two sides."""
        method = method_of(stage)
        ours, peer = WORK / f"{stage}.onnx", WORK / f"{stage}.xml"
        ours.unlink(missing_ok=True)
        Process([self.binaries / "kinoprobe-models", "quantize", CARDS[method], "--weights", WEIGHTS[method], "--clips", manifest,
            "--items", INT8_ITEMS, "--out", ours, "--quiet", *(["--include-winograd"] if has_vnni() else [])])
        Process([sys.executable, PEER / "quantize.py", "--method", method, "--manifest", manifest, "--model", model, "--items", INT8_ITEMS,
            "--out", peer])
        return ours, peer

    def ours(self, stage, manifest, out, int8_model=None):
        out.unlink(missing_ok=True)
        method = method_of(stage)
        frames = ["--frames", self.arguments.frames]
        sampling = {"cnn": frames, "cnn3d": ["--count", self.arguments.windows], "effnet": frames}.get(method, [])
        weights = ["--weights", WEIGHTS[method]] if method in CARDS else []
        command = [self.binaries / "kinoprobe-extract", "--method", method, "--manifest", manifest, "--out", out, "--quiet"]
        if int8_model is not None:
            return Process(command + ["--weights", int8_model, "--precision", "int8", "--device", "native"] + sampling)
        if stage.endswith(INT8):
            return Process(command + weights + sampling + ["--device", "native"])
        if not stage.endswith(AVX2):
            return Process(command + weights + sampling)
        return Process(command + weights + sampling + ["--device", "native"], variables={"KINOPROBE_SIMD": "avx2"})

    def peer(self, stage, manifest, out, model, configuration):
        out.unlink(missing_ok=True)
        method = method_of(stage)
        command = [sys.executable, PEER / "features.py", "--method", method, "--manifest", manifest, "--out", out]
        command += ["--workers", configuration["workers"]]
        frames = ["--frames", self.arguments.frames]
        sampling = {"sift": ["--frames", 32], "cnn": frames, "cnn3d": ["--windows", self.arguments.windows], "effnet": frames, "clip": []}
        command += sampling[method]
        if method in CARDS:
            command += ["--model", model, "--engine", configuration["engine"], "--batch", BATCH[method]]
            command += ["--torchvision"] if self.arguments.torchvision and method in ("cnn", "cnn3d") else []
        return Process(command)

    def extraction(self, stage):
        manifest, clips = self.manifest()
        model = self.model(stage) if stage in NETWORK_STAGES else None
        out = {side: WORK / f"{stage}.{side}.h5" for side in ("ours", "peer", "f32")}
        rounds, int8_model, peer_model = [], None, model
        if stage.endswith(INT8):
            int8_model, peer_model = self.int8_models(stage, manifest, model)
            exact = self.ours(stage, manifest, out["f32"])
        for number in range(self.arguments.rounds):
            self.peaks.append(peak_sgemm())
            # Alternate the order of the two sides.
            pair = {}
            for side in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
                if side == "ours":
                    pair[side] = self.ours(stage, manifest, out[side], int8_model)
                else:
                    pair[side] = self.peer(stage, manifest, out[side], peer_model, self.fastest[stage])
            agree = agreement(stage, out["ours"], out["f32" if int8_model else "peer"])
            if agree < (MIN_INT8_COSINE if int8_model else MIN_COSINE):
                raise SystemExit(f"bench: {stage}: the features of the two sides differ (cosine similarity {agree:.5f})")
            if model is not None:
                with h5py.File(out["ours"]) as file:
                    model_sha256, provider = file.attrs["model_sha256"], file.attrs["provider"]
                if model_sha256 != hashlib.sha256((int8_model or model).read_bytes()).hexdigest():
                    raise SystemExit(f"bench: {stage}: kinoprobe ran another model than {model.name}")
                if stage.endswith(AVX2) and provider != "native-avx2":
                    raise SystemExit(f"bench: {stage}: kinoprobe ran on {provider} instead of native-avx2")
            else:
                provider = "opencv"
            rounds.append((pair["ours"], pair["peer"], agree))
        items = rounds[0][1].output["items"]
        notes = {
            "clips": clips,
            "items": items,
            "peer_configuration": self.fastest[stage],
            "provider": provider,
            "peer_imports": statistics.median(run.output["imports"] for _, run, _ in rounds),
            "peer_loading": statistics.median(run.output["loading"] for _, run, _ in rounds),
        }
        if int8_model:
            notes["f32_to_int8_cpu"] = exact.cpu / statistics.median(run.cpu for run, _, _ in rounds)
            notes["peer_cosine"] = agreement(stage, out["peer"], out["f32"])
        self.record(stage, "clips/s", rounds, lambda run: clips / run.wall, higher=True, notes=notes)

    def executable(self, name):
        flags = os.environ.get("CARGOFLAGS", "").split()
        flags += ["--features", "train"] if self.arguments.train else []
        command = ["cargo", "build", "--release", "--quiet", "--bench", name, "--message-format", "json", *flags]
        built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        messages = map(json.loads, built.stdout.splitlines())
        return [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name][-1]

    def descriptors(self):
        """The file of up to 200,000 SIFT descriptors of the clips, as raw bytes."""
        file = WORK / "descriptors.u8"
        if not file.exists():
            source = pathlib.Path(self.arguments.clips_from).resolve() / "manifest.csv"
            store = WORK / "descriptors.h5"
            Process([sys.executable, PEER / "features.py", "--method", "sift", "--manifest", source, "--out", store,
                 "--workers", os.cpu_count(), "--frames", 16, "--keypoints", 300])
            with h5py.File(store) as stored:
                values = stored["descriptors"][:]
            keep = np.sort(np.random.default_rng(0).permutation(len(values))[:200_000])
            values[keep].tofile(file)
        return file

    def kmeans(self):
        data = self.descriptors()
        executable = self.executable("kmeans")
        rounds = []
        for number in range(self.arguments.rounds):
            seed = ["--seed", number]
            ours, peer = Process([executable, data, *seed]), Process([sys.executable, PEER / "kmeans.py", data, *seed])
            rounds.append((ours, peer, None))
        inertia = [statistics.mean(run.output["inertia"] for run in side) for side in list(zip(*rounds))[:2]]
        if inertia[0] > 1.005 * inertia[1]:
            raise SystemExit(f"bench: kmeans: the inertia is {inertia[0]:.4g}, that of the peer {inertia[1]:.4g}")
        notes = {"rows": rounds[0][0].output["rows"], "inertia_ratio": inertia[0] / inertia[1],
                 "iterations": [[run.output["iterations"] for run in pair[:2]] for pair in rounds]}
        self.record("kmeans", "s", rounds, lambda run: run.output["seconds"], higher=False, notes=notes)

    def long(self):
        """Few frames of long videos: the whole extraction of effnet, and the decoding of windows, against torchcodec's decoding alone
        (exact, one thread), on one core. The unit is CPU seconds, without the peer's imports."""
        peer = PEER / "long.py"
        Process([sys.executable, peer, "make", WORK])
        videos = {name: WORK / f"{name}.mp4" for name in ("trailer", "film")}
        for name, video in videos.items():
            video.with_suffix(".csv").write_text(f"id,path,label\n{name},{video.name},a\n")
        decode_windows = self.executable("decode")

        def extract(name, frames, cores=1):
            store = WORK / f"{name}.h5"
            store.unlink(missing_ok=True)
            run = Process([self.binaries / "kinoprobe-extract", "--method", "effnet", "--manifest", videos[name].with_suffix(".csv"),
                "--out", store, "--frames", frames, "--quiet"], cores)
            with h5py.File(store) as file:
                if file["clips/fully_decoded"][0] != 0:
                    raise SystemExit(f"bench: long: {name} was decoded completely")
            return run

        def reference(name, engine, *sampling):
            run = Process([sys.executable, peer, "decode", videos[name], "--engine", engine, *sampling], 1)
            run.cpu = run.output["cpu"]
            return run

        extract("trailer", 8)  # Fetches the weights.
        stages = {
            "long-8": (lambda: extract("trailer", 8), ["--frames", 8]),
            "long-32": (lambda: extract("trailer", 32), ["--frames", 32]),
            "long-windows": (lambda: Process([decode_windows, videos["trailer"], "--windows", 5], 1), ["--windows", 5]),
            "long-film": (lambda: extract("film", 8), None),
        }
        trailer_cpu = None
        for name, (ours, sampling) in stages.items():
            rounds, notes = [], {}
            for _ in range(self.arguments.rounds):
                rounds.append((ours(), reference("trailer" if sampling else "film", "torchcodec", *(sampling or ["--frames", 8])), None))
            cpu = statistics.median(run.cpu for run, _, _ in rounds)
            if name == "long-8":
                trailer_cpu = cpu
            if sampling:
                notes["opencv_cpu"] = reference("trailer", "opencv", *sampling).cpu
            else:
                notes["film_to_trailer"] = cpu / trailer_cpu
            if name == "long-8":
                walls = [[extract("trailer", 8, cores).wall for cores in (1, 2)] for _ in range(self.arguments.rounds)]
                notes["wall_two_cores"] = statistics.median(two / one for one, two in walls)
            self.record(name, "CPU s", rounds, lambda run: run.cpu, higher=False, notes=notes)

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
        if name in NETWORK_STAGES:
            peak = max(self.peaks)
            result["peak_share"] = [GFLOP[method_of(name)] * notes["items"] / wall / peak for wall in result["wall_seconds"]]
            result["peak_sgemm"] = peak
        result |= notes
        self.results.append(result)
        self.log(line(result))

    def calibrate(self):
        """Writes the fastest configuration of the peer for each method to benches/peer/fastest.json."""
        manifest, _ = self.manifest()
        fastest = {}
        for stage in [stage for stage in self.arguments.stages if stage in ("sift", *NETWORK_STAGES)]:
            model = self.model(stage) if stage in NETWORK_STAGES else None
            if stage.endswith(INT8):
                model = self.int8_models(stage, manifest, model)[1]
            # The rows with AVX2 and int8 compare with OpenVINO.
            engines = [None] if model is None else ["openvino"] if stage.endswith((AVX2, INT8)) else ["ort", "openvino"]
            configurations = [{"engine": engine, "workers": workers} for engine in engines for workers in (1, 2)]
            walls = {number: [] for number in range(len(configurations))}
            for _ in range(self.arguments.rounds):
                for number, configuration in enumerate(configurations):
                    run = self.peer(stage, manifest, WORK / f"{stage}.peer.h5", model, configuration)
                    walls[number].append(run.wall)
            for number, configuration in enumerate(configurations):
                self.log(f"{stage}: {configuration}: {statistics.median(walls[number]):.2f} s")
            fastest[stage] = configurations[min(walls, key=lambda number: statistics.median(walls[number]))]
        if dense_sift.STAGE in self.arguments.stages:
            fastest[dense_sift.STAGE] = dense_sift.calibrate(self)
        for stage in [stage for stage in self.arguments.stages if stage in training.RECIPES]:
            fastest[stage] = training.calibrate(self, stage)
        known = self.fastest | fastest
        (PEER / "fastest.json").write_text(json.dumps(known, indent=2) + "\n")

    def run(self):
        for stage in self.arguments.stages:
            if stage in ("sift", *NETWORK_STAGES):
                self.extraction(stage)
            elif stage in ("kmeans", "long"):
                getattr(self, stage)()
            elif stage == dense_sift.STAGE:
                dense_sift.run(self)
            elif stage in shallow.STAGES:
                shallow.run(self, stage)
            elif stage == compare.STAGE:
                compare.run(self, stage)
            elif stage in shards.STAGES:
                shards.run(self, stage)
            else:
                training.run(self, stage)
            # Written after each stage, so that an interrupted run keeps its results.
            (WORK / "latest.json").write_text(json.dumps(self.results, indent=2) + "\n")
            # The sections below the table are written by hand and kept.
            path = ROOT / "BENCHMARKS.md"
            text, *sections = path.read_text().partition("\n## ")
            path.write_text(self.report(text) + "".join(sections))
        self.log(f"{WORK / 'latest.json'}\n{ROOT / 'BENCHMARKS.md'}")

    def report(self, text):
        """The table of BENCHMARKS.md. Rows of stages that were not measured stay as they are in its `text`."""
        cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
        memory = next(int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemTotal")) / 2**20
        machine = f"{time.strftime('%Y-%m-%d')}, {cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
        head = [
            "# Benchmarks",
            "",
            "Written by `make bench`: complete processes of kinoprobe and of an equivalent Python implementation, the peer (`benches/peer/`), in",
            "alternation on the same clips and ONNX files; medians over the rounds. A speedup above 1 means that kinoprobe is faster; its range is",
            "over the rounds. Each row is from the last run of its stage. The peer of the rows shards-* is one process of kinoprobe without shards.",
            "In the rows *-int8, both sides quantize the network on the same clips, the peer with NNCF for OpenVINO. The cosine is the least one of kinoprobe's int8 with",
            "its f32, and peer_cosine that of the peer's int8 with the same f32: where it is lower, the peer is less accurate. f32_to_int8_cpu is the gain in CPU time.",
            "In the rows *-avx2, kinoprobe uses AVX2 (`KINOPROBE_SIMD=avx2 --device native`) and the peer OpenVINO, which cannot be limited to it: they are",
            "measured on processors without AVX-512 only.",
            "",
            "| stage | unit | kinoprobe | peer | speedup (range) | wall s | CPU s | peak MiB | memory ratio | share of peak sgemm | cosine |",
            "|-|-|-:|-:|-:|-:|-:|-:|-:|-:|-:|",
        ]
        pair = lambda values, digits: " / ".join(f"{value:.{digits}f}" for value in values)
        rows, facts = ({l.split()[1].rstrip(":"): l for l in text.splitlines() if l.startswith(start)} for start in ("| ", "- "))
        rows.pop("stage", None)
        keys = ("clips", "windows", "merge_seconds", "items", "rows", "provider", "peer_configuration", "peer_imports", "peer_loading", "inertia_ratio", "iterations", "cpu_ratio", "step_cpu", "val_accuracy", "f32_to_int8_cpu", "peer_cosine",
                "loss_difference", "pixel_difference", "agreement", "difference", "losses", "threads", "opencv_cpu", "film_to_trailer", "wall_two_cores", "peak_sgemm")
        for r in self.results:
            rows[r["name"]] = (
                f"| {r['name']} | {r['unit']} | {r['ours']:.3g} | {r['peer']:.3g} | {r['ratio']:.2f} ({r['ratio_min']:.2f}–{r['ratio_max']:.2f})"
                f" | {pair(r['wall_seconds'], 1)} | {pair(r['cpu_seconds'], 1)} | {pair(r['peak_mib'], 0)} | {r['peak_mib'][0] / max(r['peak_mib'][1], 1):.2f}"
                f" | {pair([100 * s for s in r['peak_share']], 0) + ' %' if 'peak_share' in r else ''} | {'' if r['cosine'] is None else format(r['cosine'], '.5f')} |"
            )
            values = ", ".join(f"{key} {format(r[key], '.3g') if isinstance(r[key], float) else r[key]}" for key in keys if key in r)
            facts[r["name"]] = f"- {r['name']}: {machine}: {r['rounds']} rounds, {values}"
        # A row starts with the name of its stage.
        order = sorted(rows, key=lambda name: STAGES.index(max((stage for stage in STAGES if name.startswith(stage)), key=len)))
        tail = ["", "Pairs are kinoprobe / peer. Configurations:", "", *(facts[name] for name in order if name in facts)]
        return "\n".join(head + [rows[name] for name in order] + tail) + "\n"


def line(r):
    share = f", {100 * r['peak_share'][0]:.0f} / {100 * r['peak_share'][1]:.0f} % of sgemm" if "peak_share" in r else ""
    return (
        f"{r['name']:7} kinoprobe {r['ours']:8.3f}, peer {r['peer']:8.3f} {r['unit']}: speedup {r['ratio']:.2f} ({r['ratio_min']:.2f}-{r['ratio_max']:.2f})"
        + (f", {r['cpu_ratio']:.2f} by CPU time" if "cpu_ratio" in r else "") + "; "
        f"wall {r['wall_seconds'][0]:.1f} / {r['wall_seconds'][1]:.1f} s, CPU {r['cpu_seconds'][0]:.1f} / {r['cpu_seconds'][1]:.1f} s, "
        f"peak {r['peak_mib'][0]:.0f} / {r['peak_mib'][1]:.0f} MiB{share}"
        + (f", cosine {r['cosine']:.5f}" if r["cosine"] is not None else "")
    )


def needed_variables(stage, arguments):
    """The variables of make that a stage needs, or nothing if they are set."""
    if stage.endswith(INT8):
        return "" if arguments.int8 else "INT8=1"
    if stage in training.RECIPES:
        return "" if arguments.train and arguments.torch else "TRAIN=1 PEER=torch"
    return "PEER=torch" if (stage == "long" or stage in training.STAGES) and not arguments.torch else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips-from", required=True, help="directory with manifest.csv, as written by kinoprobe-demo")
    parser.add_argument("--stages", help="comma-separated subset of " + " ".join(STAGES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=4, help="frames per clip in the stages cnn and effnet")
    parser.add_argument("--windows", type=int, default=1, help="windows per clip in the stages cnn3d and shards")
    parser.add_argument("--merge-clips", type=int, default=20_000, help="clips in the stage merge; 1000000 need 36 GB of disk")
    parser.add_argument("--calibrate", action="store_true", help="only measure which configuration of the peer is the fastest")
    parser.add_argument("--torch", action="store_true", help="PyTorch is installed: run the stages long, mlp, bilstm, attentive and transformer")
    parser.add_argument("--int8", action="store_true", help="NNCF is installed: run the stages *-int8")
    parser.add_argument("--train", action="store_true", help="libtorch is installed: with --torch, run the stages train-*")
    parser.add_argument("--torchvision", action="store_true", help="the peer of cnn and cnn3d transforms frames with torchvision, which is slower than its own transforms")
    parser.add_argument("--binaries", help="directory of the kinoprobe binaries")
    arguments = parser.parse_args()
    named = arguments.stages.replace(",", " ").split() if arguments.stages else None
    unknown = set(named or []) - set(STAGES)
    if unknown:
        parser.error(f"unknown stages: {', '.join(sorted(unknown))}; choose from {' '.join(STAGES)}")
    arguments.stages = []
    for stage in named or STAGES:
        needed = needed_variables(stage, arguments)
        if unsuitable := needs_avx2(stage):
            if named:
                raise SystemExit(f"bench: the stage {stage} cannot be measured: {unsuitable}")
            print(f"{stage}: not measured: {unsuitable}", flush=True)
        elif not needed:
            arguments.stages.append(stage)
        elif named:
            library = "NNCF" if needed == "INT8=1" else "PyTorch and libtorch" if "TRAIN" in needed else "PyTorch"
            raise SystemExit(f"bench: the stage {stage} needs {library}: make bench {needed}")
        else:
            print(f"{stage}: not measured: it needs make bench {needed}", flush=True)
    bench = Bench(arguments)
    bench.calibrate() if arguments.calibrate else bench.run()


if __name__ == "__main__":
    main()
