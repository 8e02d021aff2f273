#!/usr/bin/env bash
# Installs what kinoprobe builds with, where it is missing, and tells Cargo where OpenCV is.
# Called by `make setup`; running it again costs a second and changes nothing.
#   setup/native.sh chromium          further packages of the system, here what `make test-web` needs
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

packages=(build-essential pkg-config clang libhdf5-dev libavformat-dev libavcodec-dev libswscale-dev libavutil-dev
          libturbojpeg0-dev libopencv-core-dev libopencv-imgproc-dev libopencv-features2d-dev "$@")

command -v cargo >/dev/null || { say "cargo is missing: install Rust 1.89 or newer (rustup), then run this again"; exit 1; }
command -v python3 >/dev/null || { say "python3 is missing: install Python 3.9 or newer, then run this again"; exit 1; }
# On Debian, pip and venv are packages of their own.
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    missing=()
    for package in "${packages[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing with apt: ${missing[*]}"
        root=()
        if [ "$(id -u)" != 0 ]; then
            command -v sudo >/dev/null || { say "not root and no sudo: have these installed, then run this again: ${missing[*]}"; exit 1; }
            root=(sudo)
        fi
        "${root[@]}" apt-get update -qq
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    fi
else
    # Another system: look for what is needed, install nothing.
    absent=()
    command -v cc >/dev/null || absent+=("a C compiler")
    command -v clang >/dev/null || absent+=("clang with libclang (the bindings of OpenCV and FFmpeg are generated with it)")
    pkg-config --exists hdf5 2>/dev/null || [ -n "${HDF5_DIR:-}" ] || command -v h5cc >/dev/null || absent+=("HDF5 1.10 or newer with headers")
    pkg-config --exists libavformat libavcodec libswscale libavutil 2>/dev/null || [ -n "${FFMPEG_DIR:-}" ] || absent+=("FFmpeg 4.4 or newer: libavformat, libavcodec (best with x264), libswscale, libavutil and headers")
    pkg-config --exists libturbojpeg 2>/dev/null || absent+=("libjpeg-turbo 2.0 or newer with its TurboJPEG library")
    pkg-config --exists opencv4 2>/dev/null || [ -n "${OPENCV_LINK_LIBS:-}" ] || absent+=("OpenCV 4.5 or newer with core, imgproc, features2d and headers")
    if [ ${#absent[@]} -gt 0 ]; then
        say "this system has no apt; install these with its own package manager, then run this again:"
        printf '  - %s\n' "${absent[@]}" >&2
        exit 1
    fi
fi

# Debian's component packages carry no opencv4.pc: say where things are. With one, the bindings find it alone.
mkdir -p .cargo
config=.cargo/config.toml
if pkg-config --exists opencv4 2>/dev/null; then
    wanted=""
else
    libraries=$(dirname "$(find /usr/lib /usr/local/lib -name 'libopencv_core.so' 2>/dev/null | head -1)")
    headers=$(dirname "$(dirname "$(find /usr/include /usr/local/include -path '*opencv2/core.hpp' 2>/dev/null | head -1)")")
    [ -d "$libraries" ] && [ -d "$headers" ] || { say "OpenCV is installed but its libraries or headers were not found"; exit 1; }
    # Debian keeps the generated opencv_modules.hpp of each architecture apart.
    for folder in /usr/include/*/opencv4; do [ -d "$folder" ] && headers="$headers,$folder"; done
    wanted="# Written by setup/native.sh for this machine: where its OpenCV is.
[env]
OPENCV_LINK_LIBS = \"opencv_features2d,opencv_imgproc,opencv_flann,opencv_core\"
OPENCV_LINK_PATHS = \"$libraries\"
OPENCV_INCLUDE_PATHS = \"$headers\"
OPENCV_DISABLE_PROBES = \"pkg_config,cmake,vcpkg_cmake,vcpkg\""
fi
if [ "$wanted" != "$(cat "$config" 2>/dev/null)" ]; then
    if [ -n "$wanted" ]; then printf '%s\n' "$wanted" > "$config"; else rm -f "$config"; fi
fi
