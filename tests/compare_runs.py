"""Compares the directories of two runs of kinoprobe-classify.

    compare_runs.py DIRECTORY DIRECTORY

The directories must have the same files with the same bytes, except for durations, the path of the parent directory and, in the files for
TensorBoard, times; temporary files that kill -9 may leave (`.writing-…`) do not count. Prints what differs. Exit code: 0 if the runs are
equal, 1 if they differ. Both must have been written with the same arguments, relative to the parent directory.
"""
import pathlib
import re
import sys

# "training_seconds": 0.07, "seconds": 0.07 and `0.8 s`, `0.07 ms`, `2 min` in texts and pages.
DURATION = re.compile(rb'("\w*seconds": )[0-9.e+-]+|\b[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)? (?:s|ms|min|h)\b')
TEXTS = {".json", ".md", ".html", ".toml"}


def content(run, name):
    data = (run / name).read_bytes()
    if pathlib.Path(name).suffix not in TEXTS:
        return data
    return DURATION.sub(rb"\1DURATION", data).replace(str(run.resolve().parent).encode(), b"PARENT")


def differences(left, right):
    """The differences as sentences."""
    files = [
        {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file() and not file.name.startswith(".writing-")}
        for run in (left, right)
    ]
    found = [f"{name}: only in {left if name in files[0] else right}" for name in sorted(files[0] ^ files[1])]
    for name in sorted(files[0] & files[1]):
        # Every record of these files has the time at which it was written.
        if "tfevents" not in name and content(left, name) != content(right, name):
            found.append(f"{name}: differs")
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    found = differences(*map(pathlib.Path, sys.argv[1:]))
    print("\n".join(found) or "the runs are equal")
    raise SystemExit(1 if found else 0)
