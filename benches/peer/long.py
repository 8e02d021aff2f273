"""Long videos: `long.py make DIRECTORY` writes trailer.mp4 (150 s of 720p H.264 with a keyframe every 250 frames) and film.mp4
(50 minutes, its packets repeated). `long.py trailers DIRECTORY --count N` writes trailer-0.mp4, trailer-1.mp4, …: its groups of pictures in
other orders. `long.py decode VIDEO --frames N | --windows N --engine torchcodec | opencv` decodes the sampled frames
with one thread and prints one line of JSON: the CPU seconds after the imports.
"""
import argparse
import json
import pathlib
import time
from fractions import Fraction

import numpy as np

WIDTH, HEIGHT, RATE, FRAMES, REPEATS = 1280, 720, 24, 3600, 20


def texture(generator):
    """A random image with detail at several scales, larger than a frame."""
    shape = (HEIGHT + 400, WIDTH + 800)
    image = np.zeros(shape, np.float32)
    for size in (4, 16, 64, 200):
        coarse = generator.normal(size=(shape[0] // size + 2, shape[1] // size + 2)).astype(np.float32)
        image += np.kron(coarse, np.ones((size, size), np.float32))[: shape[0], : shape[1]] * 12 * np.log2(size)
    return np.clip(128 + image / 2, 16, 235).astype(np.uint8)


def draw(generator):
    """Yields frames: scenes of 1 to 6 s that pan, with moving objects, changes of brightness and some noise."""
    remaining = 0
    for i in range(FRAMES):
        if remaining == 0:
            scene, remaining = texture(generator), int(generator.integers(30, 150))
            speed, position = generator.integers(-3, 4, 2), np.array([200.0, 400.0])
        remaining -= 1
        position = np.clip(position + speed, [0, 0], [400, 800])
        y, x = position.astype(int)
        image = scene[y : y + HEIGHT, x : x + WIDTH].copy()
        for o in range(13):
            top = int(300 + (40 + 20 * o) * np.sin(i / (9 + 2 * o) + o))
            left = int(560 + (60 + 35 * o) * np.cos(i / (11 + 3 * o) + 2 * o))
            target = image[max(top, 0) : top + 90, max(left, 0) : left + 70]
            source = scene[100 * (o % 7) :, 90 * o :]
            target[:] = source[: target.shape[0], : target.shape[1]]
        image = image * (0.92 + 0.08 * np.sin(i / 31)) + generator.integers(-1, 2, image.shape)
        yield np.clip(image, 16, 235).astype(np.uint8)


def make(directory):
    import av

    trailer, film = directory / "trailer.mp4", directory / "film.mp4"
    if trailer.exists() and film.exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "partial.mp4"
    with av.open(str(partial), "w") as out:
        stream = out.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "medium", "crf": "20", "g": "250", "sc_threshold": "0"}
        for i, image in enumerate(draw(np.random.default_rng(7))):
            frame = av.VideoFrame.from_ndarray(np.concatenate([image, np.full_like(image[: HEIGHT // 2], 128)]), "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    partial.rename(trailer)
    repeated = read_groups(trailer) * REPEATS
    write_groups(trailer, repeated, film)


def read_groups(path):
    """The groups of pictures of a video: lists of packets (pts, dts, duration, is it a keyframe, bytes)."""
    import av

    groups = []
    with av.open(str(path)) as file:
        for packet in file.demux(file.streams.video[0]):
            if packet.size:
                if packet.is_keyframe:
                    groups.append([])
                groups[-1].append((packet.pts, packet.dts, packet.duration, packet.is_keyframe, bytes(packet)))
    return groups


def write_groups(template, groups, path):
    """Writes groups of pictures of the video `template` one after the other."""
    import av

    partial = path.with_name("partial.mp4")
    with av.open(str(template)) as file, av.open(str(partial), "w") as out:
        source = file.streams.video[0]
        stream = out.add_stream_from_template(source)
        start = 0
        for group in groups:
            first = group[0][0]
            for pts, dts, duration, key, data in group:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.duration = pts - first + start, dts - first + start, duration
                packet.is_keyframe, packet.time_base, packet.stream = key, source.time_base, stream
                out.mux(packet)
            start += sum(duration for _, _, duration, _, _ in group)
    partial.rename(path)


def make_trailers(directory, count):
    groups = read_groups(directory / "trailer.mp4")
    for i in range(count):
        path = directory / f"trailer-{i}.mp4"
        if not path.exists():
            write_groups(directory / "trailer.mp4", groups[i:] + groups[:i], path)


def indices(arguments, count, rate):
    if arguments.frames:
        return [(2 * i + 1) * count // (2 * arguments.frames) for i in range(arguments.frames)]
    # 16 frames at 15 per second, as kinoprobe samples them (torchvision's VideoClips and UniformClipSampler).
    resampled, steps = int(count * 15 / rate), max(arguments.windows - 1, 1)
    starts = [w * (resampled - 16) // steps for w in range(arguments.windows)]
    return sorted({int((start + i) * rate / 15) for start in starts for i in range(16)})


def decode(arguments):
    path = str(arguments.video)
    if arguments.engine == "torchcodec":
        import torch
        from torchcodec.decoders import VideoDecoder

        torch.set_num_threads(1)
        start = time.process_time()
        decoder = VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=1)
        wanted = indices(arguments, decoder.metadata.num_frames, decoder.metadata.average_fps)
        frames = len(decoder.get_frames_at(wanted).data)
    else:
        import cv2

        cv2.setNumThreads(1)
        start = time.process_time()
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        count, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
        wanted, frames = set(indices(arguments, count, rate)), 0
        for i in range(max(wanted) + 1):
            capture.grab()
            frames += i in wanted and capture.retrieve()[0]
    print(json.dumps({"cpu": time.process_time() - start, "frames": int(frames)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("directory", type=pathlib.Path)
    trailers = commands.add_parser("trailers")
    trailers.add_argument("directory", type=pathlib.Path)
    trailers.add_argument("--count", type=int, required=True)
    decoding = commands.add_parser("decode")
    decoding.add_argument("video", type=pathlib.Path)
    decoding.add_argument("--frames", type=int)
    decoding.add_argument("--windows", type=int)
    decoding.add_argument("--engine", choices=["torchcodec", "opencv"], required=True)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.directory)
    elif arguments.command == "trailers":
        make_trailers(arguments.directory, arguments.count)
    else:
        decode(arguments)


if __name__ == "__main__":
    main()
