"""Breaks uploads for a while, and looks whether the server minds.

    tests/fuzz/upload.py SERVER [--seconds 600] [--seed 0]        SERVER as http://127.0.0.1:8080

Takes the pictures and videos of fixtures/ apart (bytes changed, cut out, put in twice, two files joined, lengths in headers
overwritten) and the multipart form around them too, and sends them from four clients. The server is at fault when it answers
with another status than is documented, without a sentence, with a path of its own, or not at all; when it ends; or when its
memory grows. Only Python's standard library is needed. Exit status 1 where something was found; each find is kept as a
file, named on the terminal.
"""
import argparse
import collections
import http.client
import json
import pathlib
import random
import re
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTED = {200, 400, 408, 413, 415, 422, 429, 503}
KINDS = {".png", ".jpg", ".webp", ".gif", ".mp4", ".avi", ".webm", ".mkv"}
# A path of the machine in an answer: two folders or more.
PATH = re.compile(r"(?<![\w.])/(?:[\w.-]+/){2,}")


def changed(data, others, random):
    """One to four changes of a file."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4])):
        if not data:
            break
        # Headers are worth more than the middle of a stream.
        at = random.randrange(len(data) if random.random() < 0.5 else min(len(data), 256))
        length = min(random.choice([1, 2, 4, 16, 300]), len(data) - at)
        match random.randrange(9):
            case 0 | 1:
                for _ in range(length):
                    data[random.randrange(at, at + length)] ^= 1 << random.randrange(8)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length] * random.choice([1, 50])
            case 5:
                data[at : at + 4] = random.choice([b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\0" * 4, b"\0\0\x40\0"])
            case 6:
                data[at : at + length] = random.randbytes(length)
            case 7:
                other = random.choice(others)
                data[at:] = other[random.randrange(len(other)) :]
            case 8:
                data += random.choice(others)
    return bytes(data)


def form(parts, random):
    """A multipart body of (name, file name, bytes), now and then not quite one."""
    boundary = b"kinoprobe-fuzz"
    body = b""
    for name, file, data in parts:
        body += b"--" + boundary + b'\r\nContent-Disposition: form-data; name="' + name + b'"'
        body += b'; filename="' + file + b'"' if file is not None else b""
        body += b"\r\nContent-Type: " + random.choice([b"image/png", b"video/mp4", b"text/html", b"\xff"]) + b"\r\n\r\n"
        body += data + b"\r\n"
    body += b"--" + boundary + b"--\r\n"
    kind = "multipart/form-data; boundary=kinoprobe-fuzz"
    match random.randrange(20):
        case 0:
            body = body[: random.randrange(len(body))]
        case 1:
            kind = random.choice(["multipart/form-data", "text/plain", "multipart/form-data; boundary=" + "b" * 3000, ""])
        case 2:
            body = body.replace(b"\r\n", b"\n", random.randrange(1, 9))
        case 3:
            body = random.randbytes(random.randrange(2000))
    return body, kind


NAMES = [b"a.png", b"trailer.mp4", b"", None, b"../../etc/passwd", b"\xff\xfe.jpg", b"x" * 5000, b'quote".png', "plakat-ü.jpg".encode()]


class Fuzz:
    def __init__(self, arguments):
        self.server = urllib.parse.urlsplit(arguments.server)
        self.until = time.monotonic() + arguments.seconds
        self.seeds = [file.read_bytes() for file in sorted((ROOT / "fixtures").rglob("*")) if file.suffix in KINDS]
        self.statuses = collections.Counter()
        self.finds = []
        self.lock = threading.Lock()
        self.kept = pathlib.Path(tempfile.mkdtemp(prefix="kinoprobe-fuzz-"))

    def ask(self, method, path, body=None, headers={}, claimed=None):
        connection = http.client.HTTPConnection(self.server.hostname, self.server.port, timeout=60)
        try:
            if claimed is not None:
                # A client that promises more than it sends, and hangs up.
                connection.putrequest(method, path)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.putheader("Content-Length", str(claimed))
                connection.endheaders()
                connection.send(body)
                return None, ""
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def find(self, what, body):
        with self.lock:
            file = self.kept / f"{len(self.finds)}.body"
            file.write_bytes(body)
            self.finds.append(what)
            print(f"found: {what}: {file}", flush=True)

    def client(self, seed):
        chance = random.Random(seed)
        while time.monotonic() < self.until and len(self.finds) < 20:
            parts = []
            for _ in range(chance.choice([1, 1, 1, 2, 5, 20])):
                data = chance.choice(self.seeds)
                data = changed(data, self.seeds, chance) if chance.random() < 0.9 else data
                parts.append((chance.choice([b"file"] * 9 + [b"other"]), chance.choice(NAMES), data))
            body, kind = form(parts, chance)
            claimed = len(body) + chance.randrange(1, 9999) if chance.random() < 0.02 else None
            headers = {"Content-Type": kind} if kind else {}
            try:
                status, text = self.ask("POST", "/api/predict", body, headers, claimed)
            except (http.client.HTTPException, OSError) as error:
                # A body that is refused before its end may have its connection closed while it is sent.
                if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
                    self.find(f"no answer: {error!r}", body)
                self.statuses["closed"] += 1
                continue
            self.statuses["hung up" if status is None else status] += 1
            if status is not None:
                self.judge(status, text, body)

    def judge(self, status, text, body):
        if status not in DOCUMENTED:
            return self.find(f"status {status}: {text[:300]}", body)
        try:
            answer = json.loads(text)
        except ValueError:
            return self.find(f"status {status} without JSON: {text[:300]}", body)
        if status != 200 and len(str(answer.get("error", ""))) < 10:
            return self.find(f"status {status} without a sentence: {text[:300]}", body)
        if (leak := PATH.search(text)) and leak.group() not in ("/../",):
            if b"etc/passwd" not in body or "etc" not in leak.group():
                return self.find(f"status {status} names a path: {text[:300]}", body)

    def memory(self):
        text = self.ask("GET", "/metrics")[1]
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("kinoprobe_resident_memory_bytes ")) / 2**20

    def run(self, seed):
        begun = time.monotonic()
        clients = [threading.Thread(target=self.client, args=(4 * seed + i,)) for i in range(4)]
        for client in clients:
            client.start()
        seen = []
        while any(client.is_alive() for client in clients):
            clients[0].join(timeout=10)
            try:
                seen.append(self.memory())
            except (OSError, StopIteration) as error:
                self.find(f"the server is gone: {error!r}", b"")
                self.until = 0
        seconds = time.monotonic() - begun
        total = sum(self.statuses.values())
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items(), key=lambda item: -item[1]))
        print(f"fuzz: {total} requests in {seconds:.0f} s; {counts}")
        third = max(1, len(seen) // 3)
        early, late = max(seen[:third], default=0), max(seen[-third:], default=0)
        print(f"fuzz: memory at most {early:.0f} MiB in the first third of the time, {late:.0f} MiB in the last")
        if late > 1.25 * early + 50:
            self.find("memory grows", b"")
        print(f"fuzz: {len(self.finds)} finds")
        return 1 if self.finds else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(Fuzz(arguments).run(arguments.seed))
