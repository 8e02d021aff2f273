"""Sends corrupted uploads to a server.

    tests/fuzz/upload.py SERVER [--seconds 600] [--seed 0]        for example http://127.0.0.1:8080

Corrupts the images and videos in fixtures/ (bytes changed, removed or repeated, files concatenated, lengths in headers
overwritten) and the multipart form around them, and sends them from four clients. A failure is a response with an undocumented
status, without an error message or with a path on the server; no response; the end of the server; or growing memory. Needs only
the standard library. Exits with status 1 if there are failures; the request body of each is kept in a file, whose path is printed.
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
EXTENSIONS = {".png", ".jpg", ".webp", ".gif", ".mp4", ".avi", ".webm", ".mkv"}
# A path on the server: two directories or more.
SERVER_PATH = re.compile(r"(?<![\w.])/(?:[\w.-]+/){2,}")


def mutate(data, others, rng):
    """Returns a copy of a file with one to four changes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        if not data:
            break
        # Half of the changes are in the header.
        offset = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 256))
        length = min(rng.choice([1, 2, 4, 16, 300]), len(data) - offset)
        match rng.randrange(9):
            case 0 | 1:
                for _ in range(length):
                    data[rng.randrange(offset, offset + length)] ^= 1 << rng.randrange(8)
            case 2:
                del data[offset:]
            case 3:
                del data[offset : offset + length]
            case 4:
                data[offset:offset] = data[offset : offset + length] * rng.choice([1, 50])
            case 5:
                data[offset : offset + 4] = rng.choice([b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\0" * 4, b"\0\0\x40\0"])
            case 6:
                data[offset : offset + length] = rng.randbytes(length)
            case 7:
                other = rng.choice(others)
                data[offset:] = other[rng.randrange(len(other)) :]
            case 8:
                data += rng.choice(others)
    return bytes(data)


def form(parts, rng):
    """Returns a multipart body of (field name, file name, bytes) and its content type. One in five is malformed."""
    boundary = b"kinoprobe-fuzz"
    body = b""
    for name, file, data in parts:
        body += b"--" + boundary + b'\r\nContent-Disposition: form-data; name="' + name + b'"'
        body += b'; filename="' + file + b'"' if file is not None else b""
        body += b"\r\nContent-Type: " + rng.choice([b"image/png", b"video/mp4", b"text/html", b"\xff"]) + b"\r\n\r\n"
        body += data + b"\r\n"
    body += b"--" + boundary + b"--\r\n"
    content_type = "multipart/form-data; boundary=kinoprobe-fuzz"
    match rng.randrange(20):
        case 0:
            body = body[: rng.randrange(len(body))]
        case 1:
            content_type = rng.choice(["multipart/form-data", "text/plain", "multipart/form-data; boundary=" + "b" * 3000, ""])
        case 2:
            body = body.replace(b"\r\n", b"\n", rng.randrange(1, 9))
        case 3:
            body = rng.randbytes(rng.randrange(2000))
    return body, content_type


NAMES = [b"a.png", b"trailer.mp4", b"", None, b"../../etc/passwd", b"\xff\xfe.jpg", b"x" * 5000, b'quote".png', "plakat-ü.jpg".encode()]


class Fuzz:
    def __init__(self, arguments):
        self.server = urllib.parse.urlsplit(arguments.server)
        self.deadline = time.monotonic() + arguments.seconds
        self.seeds = [file.read_bytes() for file in sorted((ROOT / "fixtures").rglob("*")) if file.suffix in EXTENSIONS]
        self.statuses = collections.Counter()
        self.failures = []
        self.lock = threading.Lock()
        self.failure_dir = pathlib.Path(tempfile.mkdtemp(prefix="kinoprobe-fuzz-"))

    def request(self, method, path, body=None, headers={}, content_length=None):
        """Returns status and text of the response. With a content length, disconnects after the body: (None, "")."""
        connection = http.client.HTTPConnection(self.server.hostname, self.server.port, timeout=60)
        try:
            if content_length is not None:
                connection.putrequest(method, path)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.putheader("Content-Length", str(content_length))
                connection.endheaders()
                connection.send(body)
                return None, ""
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def fail(self, description, body):
        with self.lock:
            file = self.failure_dir / f"{len(self.failures)}.body"
            file.write_bytes(body)
            self.failures.append(description)
            print(f"failure: {description}: {file}", flush=True)

    def client(self, seed):
        rng = random.Random(seed)
        while time.monotonic() < self.deadline and len(self.failures) < 20:
            parts = []
            for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
                data = rng.choice(self.seeds)
                data = mutate(data, self.seeds, rng) if rng.random() < 0.9 else data
                parts.append((rng.choice([b"file"] * 9 + [b"other"]), rng.choice(NAMES), data))
            body, content_type = form(parts, rng)
            content_length = len(body) + rng.randrange(1, 9999) if rng.random() < 0.02 else None
            headers = {"Content-Type": content_type} if content_type else {}
            try:
                status, text = self.request("POST", "/api/predict", body, headers, content_length)
            except (http.client.HTTPException, OSError) as error:
                # The server may close the connection of a rejected request before the body is sent.
                if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
                    self.fail(f"no response: {error!r}", body)
                self.statuses["closed"] += 1
                continue
            self.statuses["disconnected" if status is None else status] += 1
            if status is not None:
                self.check(status, text, body)

    def check(self, status, text, body):
        if status not in DOCUMENTED:
            return self.fail(f"status {status}: {text[:300]}", body)
        try:
            response = json.loads(text)
        except ValueError:
            return self.fail(f"status {status} without JSON: {text[:300]}", body)
        if status != 200 and len(str(response.get("error", ""))) < 10:
            return self.fail(f"status {status} without an error message: {text[:300]}", body)
        if (leak := SERVER_PATH.search(text)) and leak.group() not in ("/../",):
            if b"etc/passwd" not in body or "etc" not in leak.group():
                return self.fail(f"status {status} with a path on the server: {text[:300]}", body)

    def memory(self):
        """Returns the server's resident memory in MiB."""
        text = self.request("GET", "/metrics")[1]
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("kinoprobe_resident_memory_bytes ")) / 2**20

    def run(self, seed):
        start = time.monotonic()
        clients = [threading.Thread(target=self.client, args=(4 * seed + i,)) for i in range(4)]
        for client in clients:
            client.start()
        samples = []
        while any(client.is_alive() for client in clients):
            clients[0].join(timeout=10)
            try:
                samples.append(self.memory())
            except (OSError, StopIteration) as error:
                self.fail(f"the server does not respond: {error!r}", b"")
                self.deadline = 0
        seconds = time.monotonic() - start
        total = sum(self.statuses.values())
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items(), key=lambda item: -item[1]))
        print(f"fuzz: {total} requests in {seconds:.0f} s; {counts}")
        third = max(1, len(samples) // 3)
        early, late = max(samples[:third], default=0), max(samples[-third:], default=0)
        print(f"fuzz: maximum memory {early:.0f} MiB in the first third of the run, {late:.0f} MiB in the last")
        if late > 1.25 * early + 50:
            self.fail("memory grows", b"")
        print(f"fuzz: {len(self.failures)} failures")
        return 1 if self.failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(Fuzz(arguments).run(arguments.seed))
