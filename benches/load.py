"""Load test of kinoprobe-serve and its Python peer over loopback.

`load.py --models runs/posters --onnx NETWORK.onnx [--seconds 60] [--concurrency 1 8 64] [--batch 4]` starts both servers one after
the other at each concurrency, sends posters with wrk over persistent connections, and prints a table: requests per second,
latency (median and 99th percentile), maximum resident memory, rejected requests (429, 503) and errors (any other failure).
"""
import argparse
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
parser = argparse.ArgumentParser()
parser.add_argument("--models", type=pathlib.Path, required=True)
parser.add_argument("--onnx", type=pathlib.Path, required=True, help="network of the peer")
parser.add_argument("--seconds", type=int, default=60)
parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/kinoprobe-serve")
parser.add_argument("--cards", type=pathlib.Path, default=ROOT / "models")
parser.add_argument("--device", default="auto")
parser.add_argument("--weights")
parser.add_argument("--json", type=pathlib.Path, help="also write the results to this file")
arguments = parser.parse_args()

PORTS = {"kinoprobe": 18081, "peer": 18082}
WARM_UP_SECONDS = 2


def posters(count=16):
    """Returns multipart bodies with generated JPEGs of 600 × 900 pixels."""
    rng = np.random.default_rng(0)
    bodies = []
    for i in range(count):
        image = cv2.resize(rng.integers(0, 255, (9, 6, 3), np.uint8), (600, 900), interpolation=cv2.INTER_CUBIC)
        for _ in range(40):
            x, y, side = (int(v) for v in rng.integers(0, 600, 3))
            color = [int(v) for v in rng.integers(0, 255, 3)]
            cv2.rectangle(image, (x, y), (x + side // 4, y + side // 8), color, -1)
        cv2.putText(image, f"POSTER {i}", (40, 800), cv2.FONT_HERSHEY_DUPLEX, 3, (255, 255, 255), 5)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
        head = f'--cut\r\nContent-Disposition: form-data; name="file"; filename="{i}.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        bodies.append(head.encode() + jpeg + b"\r\n--cut--\r\n")
    return bodies


def command(server):
    models = ["--models", arguments.models, "--batch", arguments.batch]
    if server == "peer":
        return [sys.executable, ROOT / "benches/peer/serve.py", *models, "--onnx", arguments.onnx, "--port", PORTS[server]]
    weights = ["--weights", arguments.weights] if arguments.weights else []
    return [
        arguments.binary, *models, "--cards", arguments.cards, "--device", arguments.device,
        "--addr", f"127.0.0.1:{PORTS[server]}", *weights,
    ]


def wait_for(port, process):
    while True:
        if process.poll() is not None:
            raise SystemExit(f"the server on port {port} exited with status {process.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)


def resource_usage(pid):
    """Returns resident memory in bytes and CPU time in seconds."""
    with open(f"/proc/{pid}/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return memory, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(port, concurrency, directory, seconds):
    return subprocess.Popen(
        ["wrk", "--threads", "1", "--connections", str(concurrency), "--duration", f"{seconds}s", "--timeout", "30s"]
        + ["--script", ROOT / "benches/load.lua", f"http://127.0.0.1:{port}/api/predict"],
        env={**os.environ, "POSTERS": str(directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def load(pid, port, concurrency, directory):
    wrk(port, concurrency, directory, WARM_UP_SECONDS).communicate()
    memory, cpu_start = [], resource_usage(pid)[1]
    client = wrk(port, concurrency, directory, arguments.seconds)
    while client.poll() is None:
        memory.append(resource_usage(pid)[0])
        time.sleep(0.25)
    cpu_seconds = resource_usage(pid)[1] - cpu_start
    result = json.loads(client.stderr.read())
    third = max(1, len(memory) // 3)
    return {
        "requests_per_second": result["ok"] / result["seconds"],
        "p50_ms": result["p50"],
        "p99_ms": result["p99"],
        "memory_mb": max(memory) / 1e6,
        "memory_growth_mb": (statistics.mean(memory[-third:]) - statistics.mean(memory[:third])) / 1e6,
        "cpu_ms_per_request": 1000 * cpu_seconds / max(1, result["ok"]),
        "rejected": result["rejected"],
        "errors": result["errors"],
    }


def main():
    if not shutil.which("wrk"):
        raise SystemExit("load: wrk is missing: install it (Debian: wrk)")
    temporary, results = tempfile.TemporaryDirectory(), []
    directory = pathlib.Path(temporary.name)
    for i, body in enumerate(posters()):
        (directory / str(i)).write_bytes(body)
    for concurrency in arguments.concurrency:
        for server, port in PORTS.items():
            process = subprocess.Popen([str(part) for part in command(server)], stdout=subprocess.DEVNULL)
            try:
                wait_for(port, process)
                result = load(process.pid, port, concurrency, directory)
            finally:
                process.terminate()
                process.wait()
            results.append({"server": server, "concurrency": concurrency, "load_average": os.getloadavg()[0], **result})
            print(json.dumps(results[-1]), file=sys.stderr)
    print("| server | concurrency | requests/s | p50 ms | p99 ms | CPU ms per request | memory MB (growth) | 503 | errors |")
    print("|-|-|-|-|-|-|-|-|-|")
    for r in results:
        print(
            f"| {r['server']} | {r['concurrency']} | {r['requests_per_second']:.1f} | {r['p50_ms']:.1f} | {r['p99_ms']:.1f} | "
            f"{r['cpu_ms_per_request']:.1f} | {r['memory_mb']:.0f} ({r['memory_growth_mb']:+.1f}) | {r['rejected']} | {r['errors']} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


main()
