#!/usr/bin/env bash
# Installs missing build dependencies. Called by `make setup`. Idempotent.
#   setup/native.sh [PACKAGE…]        with additional system packages, such as chromium for `make test-web`
set -euo pipefail
cd "$(dirname "$0")/.."

log() { echo "setup: $*" >&2; }

packages=(build-essential pkg-config clang libhdf5-dev libavformat-dev libavcodec-dev libavfilter-dev libswscale-dev libavutil-dev
          libturbojpeg0-dev libopencv-core-dev libopencv-imgproc-dev libopencv-features2d-dev "$@")

command -v cargo >/dev/null || { log "cargo is missing: install Rust 1.89 or newer (https://rustup.rs), then run this command again"; exit 1; }
command -v python3 >/dev/null || { log "python3 is missing: install Python 3.9 or newer, then run this command again"; exit 1; }
# Debian packages pip and venv separately.
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    missing=()
    for package in "${packages[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        log "installing with apt-get: ${missing[*]}"
        root=()
        if [ "$(id -u)" != 0 ]; then
            command -v sudo >/dev/null || { log "root or sudo is needed to install ${missing[*]}: install them, then run this command again"; exit 1; }
            root=(sudo)
        fi
        "${root[@]}" apt-get update -qq
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    fi
else
    # Not a Debian-based system: list what is missing, install nothing.
    absent=()
    command -v cc >/dev/null || absent+=("a C compiler")
    command -v clang >/dev/null || absent+=("clang with libclang (generates the bindings of OpenCV and FFmpeg)")
    pkg-config --exists hdf5 2>/dev/null || [ -n "${HDF5_DIR:-}" ] || command -v h5cc >/dev/null || absent+=("HDF5 1.10 or newer with headers")
    pkg-config --exists libavformat libavcodec libavfilter libswscale libavutil 2>/dev/null || [ -n "${FFMPEG_DIR:-}" ] || absent+=("FFmpeg 4.4 to 8 (libavformat, libavcodec, preferably with x264, libavfilter, libswscale, libavutil) with headers")
    pkg-config --exists libturbojpeg 2>/dev/null || absent+=("libjpeg-turbo 2.0 or newer with the TurboJPEG library and headers")
    pkg-config --exists opencv4 2>/dev/null || [ -n "${OPENCV_LINK_LIBS:-}" ] || absent+=("OpenCV 4.5 to 4.12 (core, imgproc, features2d) with headers")
    if [ ${#absent[@]} -gt 0 ]; then
        log "this system has no apt-get; install the following with its package manager, then run this command again:"
        printf '  - %s\n' "${absent[@]}" >&2
        exit 1
    fi
fi
