"""Writes the output of torchvision's presets to fixtures/media/transform.{json,bin}.

The images are computed by a formula that is also in tests/suite/transform.rs. For each case, the .bin file has every fifth
row and column of the resized and cropped image before normalization as eight-bit values, (3, H, W), and the .json file has
some of the normalized values.
"""
import json
import pathlib

import numpy as np
import torch
import torchvision
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification, VideoClassification

torch.set_num_threads(1)
OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures/media"


def image(height, width):
    """(H, W, 3) RGB: a gradient, edges and noise, in 32-bit integers."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    noise = ((x * 73856093) ^ (y * 19349663) ^ (c * 83492791)).astype(np.uint32) * np.uint32(2654435761) >> np.uint32(24)
    smooth = (3 * x + 2 * y + 80 * c) % 512
    smooth = np.where(smooth > 255, 511 - smooth, smooth)
    return np.where((x // 8 + y // 8) % 3 == 0, noise, smooth).astype(np.uint8)


def lite(frame):
    height, width = frame.shape[-2:]
    side = max(min(height, width) * 260 // 292, 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    frame = frame[..., top:top + side, left:left + side]
    frame = F.resize(frame, [260, 260], F.InterpolationMode.BICUBIC, antialias=False)
    return (frame.float() - 127) / 128


CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PRESETS = {
    "convnext_base": (ImageClassification(crop_size=224, resize_size=232), 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "r2plus1d_18": (VideoClassification(crop_size=(112, 112), resize_size=(128, 171), mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989)),
                    255, (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
    "efficientnet_lite2": (lite, 1, (127,) * 3, (128,) * 3),
    "clip_vit_b32": (ImageClassification(crop_size=224, resize_size=224, mean=CLIP[0], std=CLIP[1], interpolation=F.InterpolationMode.BICUBIC),
                     255, *CLIP),
}
SIZES = [(240, 320), (182, 322), (320, 240), (232, 300), (128, 171), (720, 1280), (5, 7), (1, 1), (300, 2)]

cases, pixels = [], b""
for card, (preset, scale, mean, std) in PRESETS.items():
    for height, width in SIZES:
        frame = torch.from_numpy(image(height, width)).permute(2, 0, 1)
        if isinstance(preset, VideoClassification):
            out = preset(frame[None])[:, 0]
        else:
            out = preset(frame)
        mean_, std_ = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std))
        values = ((out.double() * std_ + mean_) * scale)
        rounded = values.round()
        assert (values - rounded).abs().max() < 1e-3
        kept = rounded[:, ::5, ::5].byte().numpy()
        cases.append(dict(card=card, height=height, width=width, offset=len(pixels), shape=list(kept.shape),
                          row=out[1, 30, :8].tolist()))
        pixels += kept.tobytes()
(OUT / "transform.bin").write_bytes(pixels)
(OUT / "transform.json").write_text(json.dumps(dict(torch=torch.__version__, torchvision=torchvision.__version__, cases=cases)).replace("}, {", "},\n{") + "\n")
print(len(cases), "cases", len(pixels), "bytes")
