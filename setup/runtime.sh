#!/usr/bin/env bash
# Unpacks the libraries of ONNX Runtime and OpenVINO from pinned, hash-checked wheels into third_party/. Installs no Python package.
# Called by `make setup`; does nothing if the pinned wheels are already unpacked.
#   setup/runtime.sh          ONNX Runtime and OpenVINO for the CPU
#   setup/runtime.sh cuda     ONNX Runtime with CUDA and TensorRT
#   setup/runtime.sh cuda-libraries   CUDA 13 and cuDNN 9, which it loads; unless the dynamic linker finds them on this machine
set -euo pipefail
cd "$(dirname "$0")/.."
. setup/wheels.sh

# The libraries that src/models/runtime/cuda.rs requires. Loading them also finds what they depend on, and honors LD_LIBRARY_PATH.
cuda_is_installed() {
    python3 -c 'import ctypes, sys; [ctypes.CDLL(name) for name in sys.argv[1:]]' \
        libcudart.so.13 libcublasLt.so.13 libcublas.so.13 libcurand.so.10 libcudnn.so.9 2>/dev/null
}
if [ "${1:-}" = cuda-libraries ] && cuda_is_installed; then exit 0; fi
# The wheels of CUDA are large.
[ -z "${1:-}" ] || export PIP_NO_CACHE_DIR=1

download_wheels runtime "${1:-}" "copy libonnxruntime.so (1.31 or newer) to third_party/onnxruntime"
python3 - "$wheels" third_party <<'PYTHON'
import pathlib, shutil, sys, zipfile
wheels, third_party = map(pathlib.Path, sys.argv[1:])
# Parts of OpenVINO that are not needed to run ONNX files on a CPU, and of CUDA that ONNX Runtime does not use.
unwanted = ("pybind11", "_gpu_plugin", "_npu_plugin", "_gguf_", "_jax_", "_paddle_", "_pytorch_", "_tensorflow_",
            ".alt.so", "libnvblas", "libcufftw")
for wheel in sorted(wheels.glob("*.whl")):
    directory = third_party / wheel.name.split("-")[0].replace("_", "-")
    fresh = directory.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            file = pathlib.PurePosixPath(name).name
            library = ".so" in file and (file.startswith("lib")) and not any(part in file for part in unwanted)
            if library or "LICENSE" in file.upper() or "third-party" in file.lower():
                (fresh / file).write_bytes(archive.read(name))
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)
PYTHON
cp "$pins" "$stamp"
