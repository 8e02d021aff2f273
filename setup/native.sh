#!/usr/bin/env bash
# Installs missing build dependencies and writes the paths of OpenCV to the Cargo configuration. Called by `make setup`. Idempotent.
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

# Debian's component packages contain no opencv4.pc, which the bindings otherwise read. Write the paths to Cargo's configuration.
mkdir -p .cargo
config=.cargo/config.toml
if pkg-config --exists opencv4 2>/dev/null; then
    wanted=""
else
    libraries=$(dirname "$(find /usr/lib /usr/local/lib -name 'libopencv_core.so' 2>/dev/null | head -1)")
    headers=$(dirname "$(dirname "$(find /usr/include /usr/local/include -path '*opencv2/core.hpp' 2>/dev/null | head -1)")")
    [ -d "$libraries" ] && [ -d "$headers" ] || { log "OpenCV is installed, but its libraries or headers are not in /usr or /usr/local: install pkg-config's opencv4.pc"; exit 1; }
    # Debian installs the generated opencv_modules.hpp in a directory per architecture.
    for directory in /usr/include/*/opencv4; do [ -d "$directory" ] && headers="$headers,$directory"; done
    wanted="# Written by setup/native.sh: paths of this machine's OpenCV.
[env]
OPENCV_LINK_LIBS = \"opencv_features2d,opencv_imgproc,opencv_flann,opencv_core\"
OPENCV_LINK_PATHS = \"$libraries\"
OPENCV_INCLUDE_PATHS = \"$headers\"
OPENCV_DISABLE_PROBES = \"pkg_config,cmake,vcpkg_cmake,vcpkg\""
fi
if [ "$wanted" != "$(cat "$config" 2>/dev/null)" ]; then
    if [ -n "$wanted" ]; then printf '%s\n' "$wanted" > "$config"; else rm -f "$config"; fi
fi
