#!/usr/bin/env bash
# Takes ONNX Runtime (and, on x86, its OpenVINO plugin) out of pinned, hash-checked wheels into third_party/.
# No Python package is installed. Called by `make setup`; does nothing where the pinned wheels are already unpacked.
set -euo pipefail
cd "$(dirname "$0")/.."
architecture=$(uname -m)
pins=setup/onnxruntime-$architecture.txt
target=third_party/onnxruntime
[ -f "$pins" ] || { echo "setup: no ONNX Runtime wheel is pinned for $architecture; put libonnxruntime.so (1.31 or newer) into $target" >&2; exit 1; }
cmp -s "$pins" "$target/pins.txt" && exit 0

echo "setup: fetching ONNX Runtime into $target" >&2
rm -rf "$target.new" && mkdir -p "$target.new/wheels"
# The interpreter's own version does not matter, the wheels' libraries are plain C: one file, one hash, everywhere.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --python-version 3.11 --implementation cp --abi cp311 --abi none --platform "manylinux_2_28_$architecture" \
    --dest "$target.new/wheels" --requirement "$pins"
python3 - "$target.new" <<'PYTHON'
import pathlib, sys, zipfile
target = pathlib.Path(sys.argv[1])
for wheel in sorted((target / "wheels").glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            file = pathlib.PurePosixPath(name).name
            library = ".so" in file and "pybind11" not in file and "gpu_plugin" not in file and "npu_plugin" not in file
            if library or file in ("LICENSE", "ThirdPartyNotices.txt"):
                destination = file if library else f"{wheel.name.split('-')[0]}-{file}"
                (target / destination).write_bytes(archive.read(name))
PYTHON
rm -rf "$target.new/wheels"
cp "$pins" "$target.new/pins.txt"
rm -rf "$target" && mv "$target.new" "$target"
