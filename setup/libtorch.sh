#!/usr/bin/env bash
# Unpacks libtorch, which the feature `train` links, from pinned, hash-checked wheels into third_party/. Installs no Python package.
# Called by `make setup TRAIN=1`; does nothing if the pinned wheels are already unpacked.
#   setup/libtorch.sh         the libraries for the CPU and the headers: third_party/libtorch
#   setup/libtorch.sh cuda    also those for CUDA, which programs load at run time: third_party/libtorch-cuda
set -euo pipefail
cd "$(dirname "$0")/.."
. setup/wheels.sh
export PIP_NO_CACHE_DIR=1 # the wheels are large
download_wheels libtorch "${1:-}" "copy lib and include of libtorch 2.11.0 to third_party/libtorch"
python3 - "$wheels" third_party ${1:+"$1"} <<'PYTHON'
import pathlib, shutil, sys, zipfile
wheels, third_party = map(pathlib.Path, sys.argv[1:3])
# Libraries for the CPU. libtorch_cpu.so of this wheel loads the other four.
cpu = ("libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13")
# Parts of the CUDA wheels that training does not need: Python, linear algebra, other interfaces, profilers, multiple machines.
unwanted = ("libtorch_python", "libtorch_cuda_linalg", "libtorch_global_deps", "libtorch.so", "libshm", "libnvblas", "libcufftw",
            "libcufile_rdma", "libnvperf", "libpcsamplingutil", "libcheckpoint", "libnvshmem_bootstrap", "libnvshmem_transport",
            "libcupti", "alt.so")
names = ["libtorch", "libtorch-cuda"] if sys.argv[3:] else ["libtorch"]
fresh = {name: third_party / f"{name}.new" for name in names}
for directory in fresh.values():
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "licenses").mkdir(parents=True)
    (directory / "lib").mkdir()
headers = fresh["libtorch"] / "include"

def copy(archive, name, destination):
    destination.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as source, destination.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)

for wheel in sorted(wheels.glob("*.whl")):
    project = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = pathlib.PurePosixPath(name)
            if name.endswith("/"):
                continue
            if project == "torch" and path.parts[:2] == ("torch", "include"):
                copy(archive, name, headers.joinpath(*path.parts[2:]))
            elif path.name in cpu:
                copy(archive, name, fresh["libtorch"] / "lib" / path.name)
            elif "libtorch-cuda" in fresh and path.name.startswith("lib") and ".so" in path.name \
                    and not any(part in path.name for part in unwanted):
                copy(archive, name, fresh["libtorch-cuda"] / "lib" / path.name)
            elif ".dist-info/" in name and path.name.lower().startswith(("license", "notice")):
                for directory in fresh.values():
                    copy(archive, name, directory / "licenses" / f"{project}-{path.name}")
missing = [name for name in cpu if not (fresh["libtorch"] / "lib" / name).exists()]
if missing:
    sys.exit(f"setup: the pinned wheels of libtorch lack {', '.join(missing)}: restore setup/libtorch*.txt")
# torch-sys links libtorch.so, which in this wheel loads the libraries for CUDA, and libgomp.so.
(fresh["libtorch"] / "lib/libtorch.so").symlink_to("libtorch_cpu.so")
(fresh["libtorch"] / "lib/libgomp.so").symlink_to("libgomp.so.1")
# torch-sys compares this version with the one it supports.
(fresh["libtorch"] / "build-version").write_text("2.11.0\n")
for name, directory in fresh.items():
    shutil.rmtree(third_party / name, ignore_errors=True)
    directory.rename(third_party / name)
PYTHON
cp "$pins" "$stamp"
# The pins for CUDA include those for the CPU.
cp "setup/libtorch-$architecture.txt" third_party/libtorch.pins
