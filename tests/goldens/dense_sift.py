"""Writes reference descriptors of a dense grid to fixtures/media/dense_sift.{json,bin}: OpenCV-Python's SIFT.compute for keypoints with
angle 0 and octave 0, and an independent computation of the definition in f64 with NumPy, which also covers RootSIFT, scaled
frames and images that OpenCV's cannot describe.

The .bin file has the bytes of all descriptors, (n, 128), in the order of bin width, y, x.
"""
import json
import pathlib

import cv2
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures/media"
cv2.setNumThreads(1)


def computed(height, width):
    """A color image that the test computes as well, (height, width, 3), blue, green, red."""
    y, x, channel = np.ogrid[:height, :width, :3]
    return ((x * x * (3 + channel) + 7 * x * y + y * y * 5 + 40 * channel) // 16 % 256).astype(np.uint8)


def frame(name, index):
    capture = cv2.VideoCapture(str(OUT / name), cv2.CAP_FFMPEG)
    for _ in range(index + 1):
        ok, image = capture.read()
        assert ok
    return image


def grid(length, step):
    count = max(length // step, 1)
    return (length - 1 - (count - 1) * step) // 2 + step * np.arange(count)


def opencv(gray, step, bin_widths, sigma):
    points = [
        cv2.KeyPoint(float(x), float(y), 2 * width / 3, 0.0)
        for width in bin_widths for y in grid(gray.shape[0], step) for x in grid(gray.shape[1], step)
    ]
    kept, descriptors = cv2.SIFT_create(sigma=sigma).compute(gray, points)
    assert len(kept) == len(points)
    return descriptors


def mirrored(length, radius):
    index = np.abs(np.arange(-radius, length + radius)) % max(2 * (length - 1), 1)
    return np.minimum(index, 2 * (length - 1) - index)


def numpy(gray, step, bin_widths, sigma, root_sift):
    image = gray.astype(np.float64)
    deviation = np.sqrt(max(sigma**2 - 0.25, 0.01))
    radius = (int(np.rint(8 * deviation + 1)) | 1) // 2
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    for _ in range(2):  # columns, then rows of the transposed image
        padded = image[mirrored(len(image), radius)]
        image = sum(weight * padded[tap : tap + len(image)] for tap, weight in enumerate(kernel)).T
    height, width = image.shape
    dx, dy = np.zeros_like(image), np.zeros_like(image)
    dx[1:-1, 1:-1] = image[1:-1, 2:] - image[1:-1, :-2]
    dy[1:-1, 1:-1] = image[:-2, 1:-1] - image[2:, 1:-1]
    magnitude, angle = np.hypot(dx, dy), np.arctan2(dy, dx) * 4 / np.pi
    distance = np.abs((angle[..., None] - np.arange(8) + 4) % 8 - 4)
    maps = magnitude[..., None] * np.clip(1 - distance, 0, None)
    descriptors = []
    for bin_width in bin_widths:
        def window(center, length):
            offset = (np.arange(length) - center) / bin_width
            triangles = np.clip(1 - np.abs(offset + 1.5 - np.arange(4)[:, None]), 0, None)
            return triangles * np.exp(-(offset**2) / 8)
        for y in grid(height, step):
            for x in grid(width, step):
                values = np.einsum("ay,bx,yxo->abo", window(y, height), window(x, width), maps).ravel()
                values = np.minimum(values, 0.2 * np.linalg.norm(values))
                if root_sift:
                    values = np.sqrt(values / max(values.sum(), 1e-7))
                else:
                    values /= max(np.linalg.norm(values), 1e-7)
                descriptors.append(np.clip(np.rint(512 * values), 0, 255))
    return np.array(descriptors)


cases, data = [], b""


def add(source, step, bin_widths, sigma, root_sift=False, max_side=4096, reference="numpy", **image):
    global data
    pixels = frame(**image) if "name" in image else computed(**image)
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    scale = min(max_side / max(gray.shape), 1)
    if scale < 1:
        height, width = (round(length * scale) for length in gray.shape)
        gray = np.rint(cv2.resize(gray.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA))
    found = opencv(gray, step, bin_widths, sigma) if reference == "opencv" else numpy(gray, step, bin_widths, sigma, root_sift)
    cases.append(dict(source=source, reference=reference, step=step, bin_widths=bin_widths, sigma=sigma, root_sift=root_sift, max_side=max_side,
                      points=len(found), **image))
    data += found.astype(np.uint8).tobytes()


for reference in ("opencv", "numpy"):
    add("video", 24, [4, 7], 1.6, name="plain.mp4", index=50, reference=reference)
    add("video", 16, [6], 2.2, name="odd.mp4", index=0, reference=reference)
    add("computed", 9, [3, 10], 1.0, height=61, width=83, reference=reference)
    add("computed", 8, [4], 1.6, height=5, width=40, reference=reference)
add("video", 24, [4, 7], 1.6, root_sift=True, name="plain.mp4", index=50)
add("computed", 9, [3, 10], 0.5, root_sift=True, height=61, width=83)
add("computed", 8, [5], 1.6, max_side=50, height=61, width=83)
# Images of few pixels; without a pixel that has neighbors on all sides, descriptors are zero.
for height, width in [(1, 1), (2, 9), (3, 3)]:
    add("computed", 8, [4], 1.6, height=height, width=width)
(OUT / "dense_sift.bin").write_bytes(data)
(OUT / "dense_sift.json").write_text(json.dumps(dict(opencv=cv2.__version__, cases=cases)).replace("}, {", "},\n{") + "\n")
print(len(cases), "cases", len(data) // 128, "descriptors")
