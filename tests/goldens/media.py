"""Writes small clips and images, and their frames as decoded by OpenCV-Python, to fixtures/media/.

ffmpeg encodes the clips. For each clip, `clips.json` has the number of frames that can be decoded, their size and the SHA-256
of some frames (eight-bit blue, green, red).
"""
import hashlib
import json
import pathlib
import subprocess

import cv2
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures/media"
OUT.mkdir(parents=True, exist_ok=True)


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True)


def lavfi(graph, seconds):
    return ["-f", "lavfi", "-i", graph, "-t", seconds]


EXACT = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]
H264 = ["-c:v", "libx264", "-preset", "medium", "-pix_fmt", "yuv420p", "-g", "50", *EXACT]
SMALL = "testsrc2=s=160x120:r=25"

# The clip of most tests, with structure and motion.
ffmpeg(*lavfi("mandelbrot=s=320x240:r=25:maxiter=512:start_x=-0.743643887:end_scale=0.1", 4), *H264, "-crf", "30", OUT / "plain.mp4")
ffmpeg(*lavfi(SMALL, 1), *H264, "-crf", "35", OUT / "short.mkv")                                  # 25 frames, timestamps in ms
ffmpeg(*lavfi(SMALL, 0.4), *H264, "-crf", "35", OUT / "ten.mp4")                                   # 10 frames
ffmpeg(*lavfi("testsrc2=s=162x122:r=30000/1001", 1), *H264, "-crf", "35", OUT / "odd.mp4")         # not a multiple of 16, NTSC
ffmpeg(*lavfi(SMALL, 2), "-vf", r"select='not(mod(n,3))+lt(n,20)'", "-vsync", "vfr", *H264, "-crf", "35", OUT / "vfr.mp4")
ffmpeg(*lavfi(SMALL, 1), "-c:v", "mpeg4", "-q:v", "12", *EXACT, OUT / "mpeg4.avi")
ffmpeg(*lavfi(SMALL, 0.2), "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "16", *EXACT, OUT / "mjpeg.avi")
ffmpeg(*lavfi(SMALL, 1), "-c:v", "libvpx-vp9", "-b:v", "0", "-crf", "50", "-cpu-used", "8", *EXACT, OUT / "vp9.webm")
ffmpeg(*lavfi("sine=d=1", 1), "-c:a", "aac", "-b:a", "16k", *EXACT, OUT / "audio_only.mp4")
ffmpeg(*lavfi(SMALL, 2), *H264, "-crf", "38", OUT / "full.mp4")
# An edit list hides frames, but the container counts them.
ffmpeg("-ss", 1.02, "-i", OUT / "full.mp4", "-c", "copy", *EXACT, OUT / "edit_list.mp4")
ffmpeg("-i", OUT / "full.mp4", "-c", "copy", *EXACT, "-movflags", "+faststart", OUT / "truncated.mp4")
full = (OUT / "truncated.mp4").read_bytes()
(OUT / "truncated.mp4").write_bytes(full[: len(full) * 6 // 10])
(OUT / "full.mp4").unlink()
for degrees in (90, 180, 270):
    ffmpeg("-i", OUT / "ten.mp4", "-c", "copy", *EXACT, "-metadata:s:v:0", f"rotate={degrees}", OUT / f"turned_{degrees}.mp4")
# The frame size changes in the middle.
parts = [OUT / "wide.h264", OUT / "tall.h264"]
for part, size in zip(parts, ("64x48", "48x64")):
    ffmpeg(*lavfi(f"testsrc2=s={size}:r=25", 0.4), *H264, "-crf", "30", "-bf", "0", "-f", "h264", part)
(OUT / "sizes.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
for part in parts:
    part.unlink()

# Images: gray, alpha, 16 bits, a single pixel.
ramp = (np.arange(12 * 16).reshape(12, 16) * 1.3).astype(np.uint8)
color = np.dstack([ramp, ramp[::-1], 255 - ramp])
cv2.imwrite(str(OUT / "gray.png"), ramp)
cv2.imwrite(str(OUT / "alpha.png"), np.dstack([color, 255 - ramp]))
cv2.imwrite(str(OUT / "sixteen.png"), color.astype(np.uint16) * 257)
cv2.imwrite(str(OUT / "pixel.png"), color[5:6, 7:8])


def over_white(image):
    """Composites an eight-bit image with blue, green, red and alpha over white, rounded."""
    alpha = image[..., 3:].astype(np.uint32)
    return ((image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


expected = {}
for path in sorted(OUT.glob("*.*")):
    if path.suffix in (".mp4", ".avi", ".mkv", ".webm") and path.stem != "audio_only":
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        frames = []
        while True:
            ok, frame = capture.read()
            if not ok:
                break
            frames.append(frame)
    elif path.suffix == ".png":
        frames = [over_white(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) if path.stem == "alpha" else cv2.imread(str(path))]
    else:
        continue
    n = len(frames)
    expected[path.name] = {
        "frames": n,
        "size": list(frames[0].shape[:2]),
        "sha256": {i: hashlib.sha256(frames[i].tobytes()).hexdigest() for i in sorted({(2 * i + 1) * n // 8 for i in range(4)})},
    }
# The inverse transform of MPEG-4 part 2 is not bit-exact, so some pixels are compared with a tolerance instead.
capture = cv2.VideoCapture(str(OUT / "mpeg4.avi"), cv2.CAP_FFMPEG)
grid = [capture.read()[1][::15, ::20].flatten().tolist() for _ in range(25)]
expected["mpeg4.avi"]["samples"] = {i: grid[i] for i in expected["mpeg4.avi"].pop("sha256")}
(OUT / "clips.json").write_text(json.dumps({"opencv-python": cv2.__version__, "clips": expected}, separators=(",", ":")).replace('},"', '},\n"') + "\n")
for path in sorted(OUT.iterdir()):
    print(path.name, path.stat().st_size, expected.get(path.name, {}).get("frames", ""))

# JPEGs for bit-exact comparison: chroma subsampling, progressive, an odd size, and those of pictures.py.
y, x = np.mgrid[0:47, 0:33]
photo = np.dstack([x * 7 % 256, y * 11 % 256, (x * y) % 256]).astype(np.uint8)
cv2.imwrite(str(OUT / "halved.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
jpegs = [OUT / "halved.jpg", *sorted((OUT / "pictures").glob("*.jpg"))]
hashes = {str(path.relative_to(OUT)): hashlib.sha256(cv2.imread(str(path)).tobytes()).hexdigest() for path in jpegs}
(OUT / "jpegs.json").write_text(json.dumps(hashes, indent=1) + "\n")
