"""Generates clips for the soak test: many sizes, codecs, containers, frame rates and lengths, and a part that is damaged.

    clips.py DIRECTORY --clips 2000 --seed 0

A few hundred videos are encoded; the other clips are parts of them, copied into the same or another container without encoding, intervals
of them, their frames as images, or damaged copies. Writes manifest.csv, and damaged.csv with the damage of each damaged clip. The
same arguments give the same clips. Needs the programs of FFmpeg.
"""
import argparse
import concurrent.futures
import csv
import os
import pathlib
import random
import shutil
import subprocess

SIZES = ["64x48", "96x96", "128x72", "160x120", "240x180", "320x240", "426x240", "480x270", "640x360", "854x480", "1280x720", "1920x1080"]
# Most clips are small, so that the test takes minutes.
SIZE_WEIGHTS = [4, 4, 4, 4, 4, 4, 3, 3, 3, 2, 1, 1]
ODD_SIZES = ["65x49", "161x91", "333x187"]
RATES = ["5", "10", "12.5", "15", "24000/1001", "24", "25", "30000/1001", "30", "50", "60"]
# MPEG-2 has no other frame rates.
MPEG2_RATES = ["24000/1001", "24", "25", "30", "50", "60"]
# A label per pattern. `life` is noise, which compresses badly: small pictures only.
PATTERNS = {
    "test": "testsrc2=size={size}:rate={rate},hue=h={hue}",
    "bars": "smptebars=size={size}:rate={rate},hue=H=t:h={hue},rotate=t*{turn}",
    "gradient": "gradients=size={size}:rate={rate}:seed={seed}:speed=0.05",
    "life": "life=size={size}:rate={rate}:seed={seed}:mold=10:ratio=0.3,hue=h={hue}",
}
# Encoder, its arguments, pixel formats (the first one needs even sizes), containers.
CODECS = {
    "h264": ("libx264", ["-preset", "veryfast", "-crf", "28"], ["yuv420p", "yuv444p"], ["mp4", "mov", "mkv", "ts", "flv"]),
    "hevc": ("libx265", ["-preset", "ultrafast", "-crf", "32", "-x265-params", "log-level=none:pools=none:frame-threads=1"],
             ["yuv420p", "yuv444p"], ["mp4", "mkv", "ts"]),
    "vp9": ("libvpx-vp9", ["-deadline", "realtime", "-cpu-used", "8", "-b:v", "300k"], ["yuv420p", "yuv420p"], ["webm", "mkv", "mp4"]),
    "vp8": ("libvpx", ["-deadline", "realtime", "-cpu-used", "8", "-b:v", "300k"], ["yuv420p", "yuv420p"], ["webm", "mkv"]),
    "av1": ("libsvtav1", ["-preset", "12", "-crf", "50", "-svtav1-params", "lp=1"], ["yuv420p", None], ["mp4", "mkv", "webm"]),
    "mpeg4": ("mpeg4", ["-q:v", "8", "-bf", "1"], ["yuv420p", "yuv420p"], ["mp4", "avi", "mkv", "mov"]),
    "mpeg2": ("mpeg2video", ["-q:v", "8", "-bf", "2"], ["yuv420p", None], ["mpg", "ts", "mkv"]),
    "mjpeg": ("mjpeg", ["-q:v", "8"], ["yuvj420p", "yuvj420p"], ["avi", "mov", "mkv"]),
    "ffv1": ("ffv1", ["-level", "3"], ["yuv420p", "bgr0"], ["mkv", "avi"]),
    "gif": ("gif", [], ["rgb8", "rgb8"], ["gif"]),
}
CODEC_WEIGHTS = {"h264": 8, "hevc": 3, "vp9": 2, "vp8": 1, "av1": 2, "mpeg4": 3, "mpeg2": 2, "mjpeg": 2, "ffv1": 1, "gif": 1}
IMAGE_EXTENSIONS = ["jpg", "png", "bmp", "webp"]
HOUR = "hour.mp4"


def ffmpeg(*arguments):
    """Runs ffmpeg so that its output depends on the arguments only. Returns whether it succeeded."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


EXACT = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1"]


def available_codecs():
    """The codecs whose encoders this ffmpeg has."""
    listed = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=True).stdout
    encoders = {line.split()[1] for line in listed.splitlines() if len(line.split()) > 1}
    return [name for name, (encoder, *_) in CODECS.items() if encoder in encoders]


class Video:
    """A video to encode: its settings are drawn, and `encode` writes it."""

    def __init__(self, index, codec, draw):
        encoder, arguments, formats, containers = CODECS[codec]
        self.label = draw.choice(list(PATTERNS))
        odd = formats[1] is not None and draw.random() < 0.15
        size = draw.choice(ODD_SIZES) if odd else draw.choices(SIZES, SIZE_WEIGHTS)[0]
        if (self.label == "life" or codec in ("ffv1", "gif")) and size in SIZES[6:]:
            size = draw.choice(SIZES[:6])
        if codec == "av1" and size in SIZES[:3]:
            size = "160x120"
        rate = draw.choice(MPEG2_RATES if codec == "mpeg2" else RATES)
        # Mostly short; fewer frames for large pictures.
        self.seconds = draw.uniform(1, 3) if size in SIZES[9:] else draw.uniform(1, 10)
        self.container = draw.choice(containers)
        self.containers = containers
        self.name = f"{index:04}-{codec}-{size}.{self.container}"
        pattern = PATTERNS[self.label].format(
            size=size, rate=rate, hue=draw.randrange(360), turn=draw.choice(["0.2", "1"]), seed=draw.randrange(1 << 30)
        )
        gop = [] if codec in ("mjpeg", "ffv1", "gif") else ["-g", draw.choice(["1", "6", "12", "50", "250"])]
        start = ["-movflags", "+faststart"] if self.container in ("mp4", "mov") and draw.random() < 0.5 else []
        self.arguments = ["-f", "lavfi", "-i", pattern, "-t", f"{self.seconds:.3f}", "-c:v", encoder, *arguments, *gop,
                          "-pix_fmt", formats[1 if odd else 0], *start, *EXACT]

    def encode(self, directory):
        self.file = directory / self.name
        if not ffmpeg(*self.arguments, self.file):
            raise SystemExit(f"clips: ffmpeg cannot encode {self.file}: {' '.join(self.arguments)}")


# Damages ---------------------------------------------------------------------------------------------------------------
# Each writes a damaged file from a sound one. Those in MUST_FAIL leave nothing that could be decoded.
def truncate(source, target, draw):
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * draw.uniform(0.2, 0.9))])


def random_bytes(source, target, draw):
    data = bytearray(source.read_bytes())
    start = int(len(data) * draw.uniform(0.3, 0.6))
    length = max(16, len(data) // 10)
    data[start : start + length] = draw.randbytes(len(data[start : start + length]))
    target.write_bytes(data)


def wrong_header(source, target, draw):
    data = source.read_bytes()
    target.write_bytes(draw.randbytes(64) + data[64:])


def zeros(source, target, draw):
    target.write_bytes(bytes(draw.randrange(1, 100_000)))


def empty(source, target, draw):
    target.write_bytes(b"")


def text(source, target, draw):
    target.write_text("This is no video.\n" * draw.randrange(1, 500))


def audio_only(source, target, draw):
    # Its own length, so that the files are distinct.
    ffmpeg("-f", "lavfi", "-i", f"sine=frequency={draw.randrange(200, 2000)}:duration=2", "-c:a", "aac", *EXACT, target)


def no_frames(source, target, draw):
    # The header of a video whose frames are all dropped.
    ffmpeg("-i", source, "-c", "copy", "-bsf:v", "noise=drop=1", *EXACT, "-f", "matroska", target)


def no_key_frame(source, target, draw):
    ffmpeg("-i", source, "-c", "copy", "-bsf:v", "noise=drop=key", *EXACT, "-f", "matroska", target)


def no_index(source, target, draw):
    # An MP4 file without its index (moov), as an interrupted recording.
    whole = target.with_suffix(".whole")
    if not ffmpeg("-i", source, "-c", "copy", *EXACT, "-f", "mp4", whole):
        return text(source, target, draw)
    data, kept, position = whole.read_bytes(), b"", 0
    whole.unlink()
    while position + 8 <= len(data):
        size = max(8, int.from_bytes(data[position : position + 4], "big"))
        if data[position + 4 : position + 8] != b"moov":
            kept += data[position : position + size]
        position += size
    target.write_bytes(kept)


def dangling_link(source, target, draw):
    target.symlink_to("nowhere.mp4")


def pipe(source, target, draw):
    # Whoever opens it waits for a writer.
    os.mkfifo(target)


def device(source, target, draw):
    # Never ends.
    target.symlink_to("/dev/zero")


def no_images(source, target, draw):
    target.mkdir()
    (target / "notes.txt").write_text("no images\n")


def unreadable(source, target, draw):
    shutil.copyfile(source, target)
    target.chmod(0)


MUST_FAIL = [zeros, empty, text, audio_only, no_frames, no_index, dangling_link, pipe, device, no_images]
MAY_FAIL = [truncate, random_bytes, wrong_header, no_key_frame]
# Root reads all files.
DAMAGES = MUST_FAIL + MAY_FAIL + ([unreadable] if os.geteuid() != 0 else [])
MUST_FAIL_NAMES = {damage.__name__ for damage in MUST_FAIL + [unreadable]}


def apply(damage, source, target, draw):
    damage(source, target, draw)
    if not target.exists() and not target.is_symlink():
        # A container that cannot be written without frames.
        target.write_bytes(draw.randbytes(1000))


def generate(directory, clips, seed, jobs):
    directory.mkdir(parents=True)
    draw = random.Random(seed)
    codecs = available_codecs()
    weights = [CODEC_WEIGHTS[codec] for codec in codecs]
    # The first videos have each codec once.
    kinds = (codecs + draw.choices(codecs, weights, k=clips))[: max(30, clips // 7)]
    videos = [Video(i, codec, draw) for i, codec in enumerate(kinds)]
    for name in ("videos", "clips"):
        (directory / name).mkdir()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        hour = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=5", "-t", "3600", "-c:v", "libx264", "-preset", "veryfast", "-g", "50", *EXACT]
        long = pool.submit(ffmpeg, *hour, directory / "videos" / HOUR)
        list(pool.map(lambda video: video.encode(directory / "videos"), videos))
        if not long.result():
            raise SystemExit("clips: ffmpeg cannot encode the long video")
        rows, tasks = [["videos/" + HOUR, "test", "", ""]], []
        rows += [[f"videos/{video.name}", video.label, "", ""] for video in videos]
        damaged = {}
        # One of each kind, if there are few clips.
        count = max(clips // 20, len(DAMAGES))
        for i in range(clips - len(rows)):
            video, own = draw.choice(videos), random.Random(f"{seed} {i}")
            stem = f"clips/{i:05}"
            kind = draw.random()
            if i < count:
                damage = DAMAGES[i % len(DAMAGES)]
                path = stem if damage is no_images else f"{stem}.{video.container}"
                damaged[path] = damage.__name__
                tasks.append(lambda video=video, damage=damage, path=path, own=own: apply(damage, video.file, directory / path, own))
                rows.append([path, video.label, "", ""])
            elif kind < 0.06:
                start = own.uniform(0, video.seconds / 2)
                rows.append([f"videos/{video.name}", video.label, f"{start:.2f}", f"{own.uniform(start + 0.5, video.seconds):.2f}"])
            elif kind < 0.10:
                path = f"{stem}.{own.choice(IMAGE_EXTENSIONS)}"
                tasks.append(lambda video=video, path=path, own=own: image(video, directory / path, own))
                rows.append([path, video.label, "", ""])
            elif kind < 0.13:
                tasks.append(lambda video=video, path=stem, own=own: frames(video, directory / path, own))
                rows.append([stem, video.label, "", ""])
            else:
                path = f"{stem}.{own.choice(video.containers)}"
                tasks.append(lambda video=video, path=path, own=own: part(video, directory / path, own))
                rows.append([path, video.label, "", ""])
        list(pool.map(lambda task: task(), tasks))
    # In this order, each shard and each moment has clips of all kinds.
    draw.shuffle(rows)
    with open(directory / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "label", "split", "start", "end"])
        ids = {}
        for number, (path, label, start, end) in enumerate(rows):
            ids.setdefault(path, f"c{number:05}")
            writer.writerow([f"c{number:05}", path, label, draw.choices(["train", "val", "test"], [70, 15, 15])[0], start, end])
    with open(directory / "damaged.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "damage", "must_fail"])
        for path, damage in damaged.items():
            writer.writerow([ids[path], path, damage, int(damage in MUST_FAIL_NAMES)])


def image(video, target, draw):
    if not ffmpeg("-i", video.file, "-vf", f"select=gte(n\\,{draw.randrange(5)})", "-frames:v", "1", "-update", "1", *EXACT, target):
        raise SystemExit(f"clips: ffmpeg cannot write {target}")


def frames(video, target, draw):
    target.mkdir()
    if not ffmpeg("-i", video.file, "-frames:v", draw.randrange(1, 15), *EXACT, target / f"%d.{draw.choice(IMAGE_EXTENSIONS)}"):
        raise SystemExit(f"clips: ffmpeg cannot write {target}")


def part(video, target, draw):
    """Copies a part of a video without encoding it again. It may start between two key frames."""
    start = draw.uniform(0, video.seconds / 2)
    length = draw.uniform(0.5, video.seconds)
    ffmpeg("-ss", f"{start:.3f}", "-i", video.file, "-t", f"{length:.3f}", "-c", "copy", *EXACT, target)
    if not has_key_frame(target):
        # The container does not take the timestamps or headers of the other one, or the part has no key frame.
        shutil.copyfile(video.file, target)


def has_key_frame(file):
    command = ["ffprobe", "-v", "quiet", "-select_streams", "v", "-show_entries", "packet=flags", "-of", "csv=p=0", file]
    return "K" in subprocess.run(list(map(str, command)), capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    generate(arguments.directory, arguments.clips, arguments.seed, arguments.jobs)


if __name__ == "__main__":
    main()
