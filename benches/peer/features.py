"""The peer of kinoprobe-extract: an idiomatic Python implementation that extracts features of clips into HDF5.

Worker processes decode and transform; the main process runs the network in batches of constant size, which span clips, and writes
HDF5. `features.py --method sift|cnn|cnn3d|effnet|clip --manifest M --out F.h5 [--model FILE.onnx] …` prints one line of JSON: seconds for the
imports and for loading the model, number of clips, number of items.
"""
import time

START = time.perf_counter()
import argparse
import csv
import json
import multiprocessing
import os
import pathlib

import h5py
import numpy as np

import media


def plan_of(arguments):
    if arguments.method == "cnn3d":
        return lambda count, fps: media.windows(16, 15, arguments.windows, count, fps)
    if arguments.method == "clip":
        return lambda count, fps: media.every(12, 256, count)
    return lambda count, fps: media.even(arguments.frames, count)


def prepare(path):
    """Runs in a worker: returns the descriptors of a clip's frames, or the network's input of its windows."""
    arguments = prepare.arguments
    windows = media.decode(path, plan_of(arguments))
    if arguments.method == "sift":
        return [media.descriptors(window[0], arguments.keypoints) for window in windows]
    return np.stack([media.transform(window, arguments.method, arguments.torchvision) for window in windows])


def initialize_worker(arguments):
    prepare.arguments = arguments


def ort_engine(model, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def openvino_engine(model, threads):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda batch: request.infer({0: batch}, share_inputs=True)[0].copy()


ENGINES = {"ort": ort_engine, "openvino": openvino_engine}


def write_descriptors(out, clips, results):
    lengths, blocks = [], []
    for frames in results:
        lengths.extend(len(frame) for frame in frames)
        blocks.extend(frames)
    with h5py.File(out, "w") as file:
        file["descriptors"] = np.concatenate(blocks)
        file["rows/descriptors"] = np.array(lengths, np.uint32)
        file.create_dataset("clips/id", data=[clip["id"] for clip in clips], dtype=h5py.string_dtype())
    return len(lengths)


def write_embeddings(out, clips, results, engine, batch):
    """Runs batches that span clips (the last one may be smaller); stores the rows and their mean over each clip."""
    rows, lengths, pending = [], [], []

    def run():
        rows.append(engine(np.stack(pending)))
        pending.clear()

    for items in results:
        lengths.append(len(items))
        for item in items:
            pending.append(item)
            if len(pending) == batch:
                run()
    if pending:
        run()
    rows = np.concatenate(rows)
    ends = np.cumsum(lengths)
    mean = np.stack([rows[end - length : end].mean(axis=0, dtype=np.float64) for end, length in zip(ends, lengths)])
    with h5py.File(out, "w") as file:
        file.create_dataset("features", data=rows, chunks=True, compression="gzip", compression_opts=1, shuffle=True)
        file["pooled/mean"] = mean.astype(np.float32)
        file.create_dataset("clips/id", data=[clip["id"] for clip in clips], dtype=h5py.string_dtype())
    return len(rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", choices=["sift", *media.NETWORKS], required=True)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--model")
    parser.add_argument("--engine", choices=ENGINES, default="openvino")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--keypoints", type=int, default=32)
    parser.add_argument("--torchvision", action="store_true")
    arguments = parser.parse_args()
    manifest = pathlib.Path(arguments.manifest)
    with open(manifest, newline="") as file:
        clips = list(csv.DictReader(file))
    paths = [str(manifest.parent / clip["path"]) for clip in clips]
    imports = time.perf_counter() - START
    # Fork before an engine starts threads. imap returns the results in the order of the clips.
    with multiprocessing.get_context("fork").Pool(arguments.workers, initialize_worker, (arguments,)) as pool:
        results = pool.imap(prepare, paths)
        start = time.perf_counter()
        if arguments.method == "sift":
            loading = 0.0
            items = write_descriptors(arguments.out, clips, results)
        else:
            engine = ENGINES[arguments.engine](arguments.model, arguments.threads)
            loading = time.perf_counter() - start
            items = write_embeddings(arguments.out, clips, results, engine, arguments.batch)
        pool.close()
        pool.join()
    print(json.dumps({"imports": imports, "loading": loading, "clips": len(clips), "items": items}))


if __name__ == "__main__":
    main()
