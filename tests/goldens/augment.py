#!/usr/bin/env python3
"""torchvision's transforms of eight-bit tensors with given parameters -> fixtures/train/augment.{json,bin}.

The images are computed by the formula of transform.py, which is also in src/train/augment/tests.rs. The .bin file has the
results as (height, width, 3) bytes, one after the other.

Resizing is that of torchvision.transforms.functional, which computes in 32-bit floats. The version of transforms.v2 rounds between its
passes on some processors; its results, which the script compares, differ by at most one step.
"""
import json
import pathlib

import numpy as np
import torch
import torchvision
from torchvision.transforms import InterpolationMode, functional
from torchvision.transforms.v2 import functional as F

torch.set_num_threads(1)
OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures/train"
OUT.mkdir(exist_ok=True)


def image(height, width):
    """(3, H, W) RGB: a gradient, edges and noise."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    noise = ((x * 73856093) ^ (y * 19349663) ^ (c * 83492791)).astype(np.uint32) * np.uint32(2654435761) >> np.uint32(24)
    smooth = (3 * x + 2 * y + 80 * c) % 512
    smooth = np.where(smooth > 255, 511 - smooth, smooth)
    pixels = np.where((x // 8 + y // 8) % 3 == 0, noise, smooth).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def within_one(expected, other):
    assert (expected.int() - other.int()).abs().max() <= 1
    return expected


def crop(frame, *area):
    arguments = dict(size=list(frame.shape[-2:]), antialias=True)
    return within_one(functional.resized_crop(frame, *area, **arguments), F.resized_crop(frame, *area, **arguments))


def resize(frame, *size):
    return within_one(functional.resize(frame, list(size), antialias=True), F.resize(frame, list(size), antialias=True))


ORIENTATIONS = [
    lambda x: x, lambda x: torch.rot90(x, 1, (-2, -1)), lambda x: torch.rot90(x, 2, (-2, -1)), lambda x: torch.rot90(x, 3, (-2, -1)),
    lambda x: torch.flip(x, (-1,)), lambda x: torch.flip(x, (-2,)),
]
OPERATIONS = {
    "rotate": lambda x, degrees: F.rotate(x, degrees, InterpolationMode.BILINEAR, fill=[0, 0, 0]),
    "flip": lambda x: F.horizontal_flip(x),
    "crop": crop,
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
    "grayscale": lambda x: F.rgb_to_grayscale(x, 3),
    "blur": lambda x, kernel, sigma: F.gaussian_blur(x, [kernel, kernel], [sigma, sigma]),
    "orient": lambda x, label: ORIENTATIONS[label](x),
    "resize": resize,
    "short": lambda x, short, side: F.center_crop(resize(x, short), [side, side]),
}
CASES = [
    *(("rotate", size, [degrees]) for size in [(40, 56), (33, 33)] for degrees in [15.0, -12.5, 3.3, 77.7, 180.0]),
    ("flip", (40, 56), []), ("flip", (33, 33), []),
    *(("crop", (40, 56), area) for area in [[3, 5, 31, 40], [0, 0, 40, 20], [17, 30, 1, 1], [10, 0, 7, 56]]),
    *(("brightness", (40, 56), [factor]) for factor in [0.0, 0.37, 1.73]),
    *(("contrast", (40, 56), [factor]) for factor in [0.0, 0.37, 1.73]),
    *(("saturation", (40, 56), [factor]) for factor in [0.0, 0.37, 1.73]),
    *(("hue", (40, 56), [shift]) for shift in [-0.5, -0.31, 0.0, 0.11, 0.2]),
    ("grayscale", (40, 56), []),
    *(("blur", (40, 56), parameters) for parameters in [[3, 0.1], [9, 0.7], [23, 2.0], [23, 1.3]]),
    *(("orient", (33, 33), [label]) for label in range(6)),
    *(("resize", size, [30, 30]) for size in [(40, 56), (200, 120), (17, 90), (30, 30), (13, 19)]),
    *(("short", size, [36, 32]) for size in [(40, 56), (200, 120), (120, 41)]),
]

cases, pixels = [], b""
for name, (height, width), parameters in CASES:
    out = OPERATIONS[name](image(height, width), *parameters).permute(1, 2, 0).contiguous().numpy()
    assert out.dtype == np.uint8
    cases.append(dict(operation=name, size=[height, width], parameters=parameters, shape=list(out.shape), offset=len(pixels)))
    pixels += out.tobytes()
(OUT / "augment.bin").write_bytes(pixels)
golden = dict(torch=torch.__version__, torchvision=torchvision.__version__, cases=cases)
(OUT / "augment.json").write_text(json.dumps(golden).replace("}, {", "},\n{") + "\n")
print(len(cases), "cases", len(pixels), "bytes")
