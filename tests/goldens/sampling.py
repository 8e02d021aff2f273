"""Writes the windows of torchvision's VideoClips and UniformClipSampler to fixtures/media/sampling.json.

torchvision uses 32-bit floats. Cases with another result in exact arithmetic, which kinoprobe uses, are omitted and counted.
"""
import json
import math
import pathlib
from fractions import Fraction

import torch
import torchvision
from torchvision.datasets.samplers import UniformClipSampler
from torchvision.datasets.video_utils import VideoClips

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures/media/sampling.json"


def exact(frames, fps, length, rate, count):
    step = fps / rate
    if step.denominator == 1:
        sequence = list(range(0, frames, int(step)))
    else:
        sequence = [math.floor(k * step) for k in range(math.floor(frames * rate / fps))]
    n = len(sequence) - length + 1
    if n < 1:
        return None
    starts = sorted({w * (n - 1) // max(count - 1, 1) for w in range(count)})
    return [sequence[s:s + length] for s in starts]


def torchvision_windows(frames, fps, length, rate, count):
    clips, idxs = VideoClips.compute_clips_for_video(torch.arange(frames), length, 1, float(fps), float(rate))
    if len(clips) == 0:
        return None
    holder = VideoClips.__new__(VideoClips)
    holder.clips = [clips]
    chosen = list(dict.fromkeys(UniformClipSampler(holder, count)))
    return [clips[c].tolist() for c in chosen]


cases, dropped = [], 0
for fps in [Fraction(25), Fraction(30), Fraction(24), Fraction(15), Fraction(10), Fraction(60), Fraction(30000, 1001),
            Fraction(24000, 1001), Fraction(25, 2)]:
    for frames in [17, 48, 75, 100, 187, 250, 299]:
        for length, rate, count in [(16, 15, 1), (16, 15, 5), (16, 30, 3), (8, 25, 4), (32, 15, 10)]:
            rate = Fraction(rate)
            expected = torchvision_windows(frames, fps, length, rate, count)
            if expected is None:
                continue
            if expected != exact(frames, fps, length, rate, count):
                dropped += 1
                continue
            cases.append(dict(frames=frames, fps=float(fps), length=length, rate=float(rate), count=count, windows=expected))
cases = cases[::2]  # half of them are enough
OUT.write_text("{\"torchvision\": %s, \"left_out\": %d, \"cases\": [\n%s\n]}\n" % (
    json.dumps(torchvision.__version__), dropped, ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)))
print(len(cases), "cases,", dropped, "omitted because of 32-bit rounding;", OUT.stat().st_size, "bytes")
