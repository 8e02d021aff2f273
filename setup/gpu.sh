#!/usr/bin/env bash
# Checks that this machine has an NVIDIA GPU and its driver, before `make setup DEVICE=cuda` downloads libraries for them.
set -euo pipefail
shopt -s nullglob
devices=(/dev/nvidia[0-9]* /dev/dxg)
for device in "${devices[@]}"; do
    [ -e "$device" ] && found=yes
done
if [ -z "${found:-}" ]; then
    echo "setup: DEVICE=${1:-cuda} needs an NVIDIA GPU with its driver: this machine has no /dev/nvidia0; omit DEVICE to use the CPU" >&2
    exit 1
fi
if ! { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -q 'libcuda\.so\.1'; then
    echo "setup: DEVICE=${1:-cuda} needs the NVIDIA driver: libcuda.so.1 is missing; omit DEVICE to use the CPU" >&2
    exit 1
fi
