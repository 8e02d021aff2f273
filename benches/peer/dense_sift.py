"""The descriptors of benches/dense_sift.rs in OpenCV-Python: SIFT.compute for the keypoints of a grid. Prints one line of JSON.

`dense_sift.py DIRECTORY --workers 2 --threads 1 --out FILE.npy`: images in parallel, and threads of OpenCV for each image.
"""
import argparse
import concurrent.futures
import json
import pathlib
import threading
import time

import cv2
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("directory", type=pathlib.Path)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--out", required=True)
parser.add_argument("--step", type=int, default=8)
parser.add_argument("--bin-widths", type=int, nargs="+", default=[4, 6, 8, 10])
arguments = parser.parse_args()
cv2.setNumThreads(arguments.threads)
local = threading.local()


def grid(length):
    count = max(length // arguments.step, 1)
    return (length - 1 - (count - 1) * arguments.step) // 2 + arguments.step * np.arange(count)


def describe(image):
    if not hasattr(local, "sift"):
        local.sift = cv2.SIFT_create()
    rows, columns = map(grid, image.shape)
    points = [
        cv2.KeyPoint(float(x), float(y), 2 * width / 3, 0.0) for width in arguments.bin_widths for y in rows for x in columns
    ]
    kept, descriptors = local.sift.compute(image, points)
    assert len(kept) == len(points)
    return descriptors.astype(np.uint8)


images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in sorted(arguments.directory.iterdir())]
with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
    start, cpu = time.perf_counter(), time.process_time()
    described = list(pool.map(describe, images))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
descriptors = np.concatenate(described)
np.save(arguments.out, descriptors)
print(json.dumps({"seconds": seconds, "cpu": cpu, "images": len(images), "rows": len(descriptors)}))
