#!/usr/bin/env bash
# Writes the paths of this machine's OpenCV and of libtorch to the Cargo configuration. Called by `make setup`. Idempotent.
set -euo pipefail
cd "$(dirname "$0")/.."

settings=()
# Debian's component packages contain no opencv4.pc, which the bindings otherwise read.
if ! pkg-config --exists opencv4 2>/dev/null && [ -z "${OPENCV_LINK_LIBS:-}" ]; then
    libraries=$(dirname "$(find /usr/lib /usr/local/lib -name 'libopencv_core.so' 2>/dev/null | head -1)")
    headers=$(dirname "$(dirname "$(find /usr/include /usr/local/include -path '*opencv2/core.hpp' 2>/dev/null | head -1)")")
    [ -d "$libraries" ] && [ -d "$headers" ] || { echo "setup: OpenCV is installed, but its libraries or headers are not in /usr or /usr/local: install pkg-config's opencv4.pc" >&2; exit 1; }
    # Debian installs the generated opencv_modules.hpp in a directory per architecture.
    for directory in /usr/include/*/opencv4; do [ -d "$directory" ] && headers="$headers,$directory"; done
    settings+=(
        'OPENCV_LINK_LIBS = "opencv_features2d,opencv_imgproc,opencv_flann,opencv_core"'
        "OPENCV_LINK_PATHS = \"$libraries\""
        "OPENCV_INCLUDE_PATHS = \"$headers\""
        'OPENCV_DISABLE_PROBES = "pkg_config,cmake,vcpkg_cmake,vcpkg"')
fi
# Read by the build script of torch-sys, which is compiled with the feature `train` only.
if [ -d third_party/libtorch ]; then settings+=('LIBTORCH = { value = "third_party/libtorch", relative = true }'); fi

config=.cargo/config.toml
wanted=""
if [ ${#settings[@]} -gt 0 ]; then wanted=$(printf '%s\n' '# Written by setup/cargo.sh for this machine.' '[env]' "${settings[@]}"); fi
[ "$wanted" = "$(cat "$config" 2>/dev/null)" ] && exit 0
mkdir -p .cargo
if [ -n "$wanted" ]; then printf '%s\n' "$wanted" > "$config"; else rm -f "$config"; fi
