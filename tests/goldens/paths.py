#!/usr/bin/env python3
"""End-to-end reference: an H.264 clip that is decoded, sampled, transformed and embedded by the reference libraries.

    python tests/goldens/paths.py [--checkpoint models/downloads/efficientnet-lite2-9656183e.pth]

Needs numpy, torch, torchvision, opencv-python-headless, transformers (and efficientnet_lite_pytorch). Frames come from
OpenCV-Python, windows from torchvision's resampling rule, pixels from torchvision's published presets (EfficientNet-Lite2:
torchvision's bicubic interpolation after TensorFlow's center crop), networks from torchvision with the seeded weights of
networks.py.
Writes fixtures/networks/NAME-path.npy, (rows, dim).
"""
import argparse
import math
import pathlib

import cv2
import numpy as np
import torch
import torchvision.transforms.functional as F
from torchvision.transforms._presets import ImageClassification, VideoClassification

import networks

CLIP = networks.ROOT / "fixtures" / "media" / "plain.mp4"


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        read, frame = capture.read()
        if not read:
            return np.stack(frames), capture.get(cv2.CAP_PROP_FPS)
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def even(count, samples):
    return [(2 * i + 1) * count // (2 * samples) for i in range(samples)]


def windows(count, fps, length=16, rate=15, max_windows=5):
    """torchvision's VideoClips and UniformClipSampler: frame k is floor(k * fps / rate), starts are evenly spaced."""
    resampled = [math.floor(k * fps / rate) for k in range(math.floor(count * rate / fps))]
    starts = len(resampled) - length + 1
    selected = sorted({i * (starts - 1) // (max_windows - 1) for i in range(max_windows)})
    return [resampled[s : s + length] for s in selected]


def lite2(frame):
    height, width, _ = frame.shape
    side = int(260 / (260 + 32) * min(height, width))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    square = torch.from_numpy(frame[top : top + side, left : left + side]).permute(2, 0, 1)
    # Without antialiasing, as in TensorFlow: the network was trained with this transform.
    pixels = F.resize(square, [260, 260], F.InterpolationMode.BICUBIC, antialias=False)
    return (pixels.float() - 127) / 128


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--checkpoint",
        type=pathlib.Path,
        default=networks.ROOT / "models" / "downloads" / "efficientnet-lite2-9656183e.pth",
    )
    parser.add_argument("networks", nargs="*", metavar="NAME", help="only these [default: all]")
    arguments = parser.parse_args()
    frames, fps = frames_of(CLIP)
    indices = even(len(frames), 8)
    images = torch.from_numpy(frames[indices]).permute(0, 3, 1, 2)
    image_preset = ImageClassification(crop_size=224, resize_size=232)
    video_preset = VideoClassification(
        crop_size=(112, 112), resize_size=(128, 171), mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989)
    )
    clip_preset = ImageClassification(
        crop_size=224, resize_size=224, interpolation=F.InterpolationMode.BICUBIC,
        mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711),
    )
    sequence = torch.from_numpy(frames[::12]).permute(0, 3, 1, 2)
    inputs = {
        "clip_vit_b32": clip_preset(sequence),
        "convnext_base": image_preset(images),
        "resnet50": image_preset(images),
        "r2plus1d_18": torch.stack(
            [video_preset(torch.from_numpy(frames[w]).permute(0, 3, 1, 2)) for w in windows(len(frames), fps)]
        ),
    }
    if arguments.checkpoint.is_file():
        inputs["efficientnet_lite2"] = torch.stack([lite2(frames[i]) for i in indices])
    for name, batch in inputs.items():
        if arguments.networks and name not in arguments.networks:
            continue
        module, _ = networks.network(name)  # seeded
        if name == "efficientnet_lite2":
            module.net.load_state_dict(torch.load(arguments.checkpoint, map_location="cpu"))
        with torch.inference_mode():
            rows = module(batch).numpy()
        path = networks.ROOT / "fixtures" / "networks" / f"{name}-path.npy"
        np.save(path, rows)
        print(path.name, rows.shape, float(np.sqrt((rows**2).mean())))


if __name__ == "__main__":
    main()
