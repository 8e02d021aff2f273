"""Compares HDF5 feature stores byte by byte, to show that a change of the code does not change the features.

    compare_stores.py --base REV [--head REV]    the demo stores of two revisions: each is checked out into a worktree below
                                                 target/compare-stores, built, and runs `make features`
    compare_stores.py DIRECTORY DIRECTORY              the stores (*.h5) of two directories

Prints one line per dataset and attribute. Every dataset must have the same type, shape and bytes, and every attribute the same
value, except for attributes that depend on the version, the time or the device (IGNORED, and --ignore). Exit code: 0 if the stores
are equal, 1 if they differ, 2 if they cannot be compared. Needs h5py (`make compare-stores BASE=REV` provides it).
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORK = ROOT / "target" / "compare-stores"
# The tool's version, the date and duration of the extraction, the engine and its instruction set.
IGNORED = {"tool_version", "created", "extract_seconds", "provider"}


def datasets(file):
    """All datasets of a file by name."""
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def attributes(file):
    """All attributes of the root, the groups and the datasets, by `path@name`."""
    found = {f"@{name}": value for name, value in file.attrs.items()}
    file.visititems(lambda path, item: found.update({f"{path}@{name}": value for name, value in item.attrs.items()}))
    return found


def content(value):
    """A comparable form of a dataset or an attribute: type, shape and bytes. NaNs with equal bits are equal."""
    array = np.asarray(value[()] if isinstance(value, h5py.Dataset) else value)
    elements = array.ravel().tolist() if array.dtype == object else array.tobytes()
    return str(array.dtype), array.shape, elements


def describe(value):
    if isinstance(value, h5py.Dataset):
        return f"{value.dtype} {value.shape}"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def compare(name, base, head, ignored):
    """Compares two open stores and returns the number of differences."""
    differences = 0
    for kind in (datasets, attributes):
        left, right = kind(base), kind(head)
        for item in sorted(left.keys() | right.keys()):
            if item.rpartition("@")[2] in ignored and "@" in item:
                print(f"ignored  {name} {item}")
            elif item not in left or item not in right:
                print(f"DIFFERS  {name} {item}: only in the {'first' if item in left else 'second'} store")
                differences += 1
            elif content(left[item]) == content(right[item]):
                print(f"equal    {name} {item}: {describe(left[item])}")
            else:
                print(f"DIFFERS  {name} {item}: {describe(left[item])} and {describe(right[item])}{magnitude(left[item], right[item])}")
                differences += 1
    return differences


def magnitude(left, right):
    """The number of unequal elements and the largest difference of two numeric datasets of the same shape."""
    if not isinstance(left, h5py.Dataset) or left.shape != right.shape or left.dtype.kind not in "fiu":
        return ""
    left, right = left[()].astype(np.float64), right[()].astype(np.float64)
    return f": {np.count_nonzero(left != right)} elements, by at most {np.nanmax(np.abs(left - right)):.3g}"


def compare_directories(base, head, ignored):
    """Compares the stores of two directories and returns the number of differences."""
    names = sorted({file.name for directory in (base, head) for file in directory.glob("*.h5")})
    if not names:
        fail(f"{base} and {head} contain no stores (*.h5)")
    differences = 0
    for name in names:
        missing = [str(directory) for directory in (base, head) if not (directory / name).is_file()]
        if missing:
            print(f"DIFFERS  {name}: missing in {missing[0]}")
            differences += 1
            continue
        with h5py.File(base / name) as left, h5py.File(head / name) as right:
            differences += compare(name, left, right, ignored)
    print(f"{len(names)} stores: " + (f"{differences} differences" if differences else "equal"))
    return differences


def extract(revision, name):
    """Checks out and builds a revision, runs its `make features`, and returns the directory of the stores."""
    tree = WORK / name
    commit = subprocess.run(["git", "rev-parse", "--verify", "--quiet", revision + "^{commit}"], cwd=ROOT, capture_output=True, text=True)
    if commit.returncode != 0:
        fail(f"unknown revision {revision}")
    subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, capture_output=True)
    shutil.rmtree(tree, ignore_errors=True)
    run(["git", "worktree", "prune"], ROOT)
    run(["git", "worktree", "add", "--quiet", "--detach", tree, commit.stdout.strip()], ROOT)
    # Downloads are shared through hard links, which are safe because the setup replaces files instead of writing into them.
    for downloads in ("third_party", "models/downloads"):
        if (ROOT / downloads).is_dir():
            shutil.copytree((ROOT / downloads).resolve(), tree / downloads, copy_function=os.link)
    # One target directory for both revisions, so that dependencies are compiled once.
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    print(f"extracting the demo's features at {revision} ({commit.stdout[:9]}) in {tree}", file=sys.stderr)
    run(["make", "--no-print-directory", "features"], tree, CARGO_TARGET_DIR=str(target))
    return tree / "demo" / "features"


def run(command, directory, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL")}
    status = subprocess.run([str(part) for part in command], cwd=directory, env=environment | variables, stdout=sys.stderr).returncode
    if status != 0:
        fail(f"{' '.join(map(str, command))} in {directory} failed with exit code {status}")


def fail(message):
    print(f"compare_stores: {message}", file=sys.stderr)
    raise SystemExit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="*", type=pathlib.Path, metavar="DIRECTORY", help="two directories of stores")
    parser.add_argument("--base", metavar="REV", help="revision to compare with")
    parser.add_argument("--head", metavar="REV", default="HEAD", help="revision to compare (default: HEAD)")
    parser.add_argument("--ignore", metavar="ATTRIBUTE", action="append", default=[], help="further attribute to ignore; may be repeated")
    arguments = parser.parse_args()
    if (len(arguments.directories) == 2) == (arguments.base is not None) or len(arguments.directories) not in (0, 2):
        parser.error("give two directories, or --base REV")
    base, head = arguments.directories or (extract(arguments.base, "base"), extract(arguments.head, "head"))
    for directory in (base, head):
        if not directory.is_dir():
            fail(f"{directory} is not a directory")
    raise SystemExit(1 if compare_directories(base, head, IGNORED | set(arguments.ignore)) else 0)


if __name__ == "__main__":
    main()
