"""Writes OpenCV-Python's SIFT descriptors of some frames to fixtures/media/sift.{json,bin}.

The .bin file has the eight-bit descriptors of all frames, (n, 128), sorted by response (descending), y, x, size, angle and
octave.
"""
import json
import pathlib

import cv2
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures/media"
cv2.setNumThreads(1)


def frames(name):
    capture = cv2.VideoCapture(str(OUT / name), cv2.CAP_FFMPEG)
    decoded = []
    while True:
        ok, frame = capture.read()
        if not ok:
            return decoded
        decoded.append(frame)


cases, data = [], b""
for name, count in [("plain.mp4", 6), ("odd.mp4", 3), ("short.mkv", 3), ("turned_90.mp4", 1)]:
    all_frames = frames(name)
    for i in range(count):
        index = (2 * i + 1) * len(all_frames) // (2 * count)
        for keypoints in (32, 500):
            if keypoints == 500 and i:
                continue
            gray = cv2.cvtColor(all_frames[index], cv2.COLOR_BGR2GRAY)
            found, descriptors = cv2.SIFT_create(nfeatures=keypoints).detectAndCompute(gray, None)
            order = sorted(range(len(found)), key=lambda k: (-found[k].response, found[k].pt[1], found[k].pt[0], found[k].size,
                                                             found[k].angle, found[k].octave))[:keypoints]
            rows = descriptors[order] if order else np.zeros((0, 128), np.float32)
            assert (rows == rows.astype(np.uint8)).all()
            cases.append(dict(clip=name, frame=index, keypoints=keypoints, found=len(rows)))
            data += rows.astype(np.uint8).tobytes()
(OUT / "sift.bin").write_bytes(data)
(OUT / "sift.json").write_text(json.dumps(dict(opencv=cv2.__version__, cases=cases)).replace("}, {", "},\n{") + "\n")
print(len(cases), "frames", len(data) // 128, "descriptors")
