#!/usr/bin/env bash
# Takes ONNX Runtime and OpenVINO out of pinned, hash-checked wheels into third_party/. Installs no Python package.
# Called by `make setup`; does nothing where the pinned wheels are already unpacked.
#   setup/runtime.sh          the CPU runtimes
#   setup/runtime.sh cuda     ONNX Runtime with CUDA and TensorRT (needs CUDA 13 and cuDNN 9 on the machine)
set -euo pipefail
cd "$(dirname "$0")/.."
architecture=$(uname -m)
variant=${1:+-$1}
pins=setup/runtime$variant-$architecture.txt
stamp=third_party/runtime$variant.pins
[ -f "$pins" ] || { echo "setup: no runtime is pinned for $architecture${1:+ with $1}: put libonnxruntime.so (1.31 or newer) into third_party/onnxruntime" >&2; exit 1; }
cmp -s "$pins" "$stamp" && exit 0

echo "setup: fetching $(sed 's/ --hash.*//' "$pins" | paste -sd' ') into third_party" >&2
mkdir -p third_party
wheels=$(mktemp -d third_party/wheels.XXXXXX)
trap 'rm -rf "$wheels"' EXIT
# The interpreter's own version does not matter, the libraries are plain C: one file and one hash everywhere.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --python-version 3.11 --implementation cp --abi cp311 --abi none --platform "manylinux_2_28_$architecture" \
    --platform "manylinux_2_27_$architecture" --dest "$wheels" --requirement "$pins"
python3 - "$wheels" third_party <<'PYTHON'
import pathlib, shutil, sys, zipfile
wheels, third_party = map(pathlib.Path, sys.argv[1:])
# Of OpenVINO only what reads ONNX and runs it on a CPU.
unwanted = ("pybind11", "_gpu_plugin", "_npu_plugin", "_gguf_", "_jax_", "_paddle_", "_pytorch_", "_tensorflow_")
for wheel in sorted(wheels.glob("*.whl")):
    folder = third_party / wheel.name.split("-")[0].replace("_", "-")
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            file = pathlib.PurePosixPath(name).name
            library = ".so" in file and (file.startswith("lib")) and not any(part in file for part in unwanted)
            if library or "LICENSE" in file.upper() or "third-party" in file.lower():
                (fresh / file).write_bytes(archive.read(name))
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
PYTHON
cp "$pins" "$stamp"
