#!/usr/bin/env bash
# Checks that this machine has an NVIDIA GPU and a driver for CUDA 13, before `make setup DEVICE=cuda` downloads libraries for them.
# Tests set KINOPROBE_TEST_ROOT, a directory with /dev, /proc and /sys of another machine.
set -euo pipefail
shopt -s nullglob
device=${1:-cuda} root=${KINOPROBE_TEST_ROOT:-} architecture=$(uname -m)
# The oldest driver for CUDA 13: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
needed=580
install="install it (Ubuntu: sudo ubuntu-drivers install nvidia:$needed; other systems: https://www.nvidia.com/drivers) and restart"

refuse() {
    echo "setup: DEVICE=$device needs $1; omit DEVICE to use the CPU" >&2
    exit 1
}

# Prints the version of the driver, such as 580.65.06, if one is loaded. Under WSL it is part of Windows.
driver_version() {
    cat "$root/sys/module/nvidia/version" 2>/dev/null ||
        sed -nE 's/^NVRM version:.* ([0-9]+(\.[0-9]+)+) .*/\1/p' "$root/proc/driver/nvidia/version" 2>/dev/null ||
        PATH=$PATH:/usr/lib/wsl/lib nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n '1{/^[0-9]/p}' ||
        true
}

has_nvidia_pci_device() {
    local vendors=("$root"/sys/bus/pci/devices/*/vendor)
    [ ${#vendors[@]} -gt 0 ] && grep -qi 0x10de "${vendors[@]}"
}

[ -f "$(dirname "$0")/runtime-cuda-$architecture.txt" ] ||
    refuse "an x86-64 processor: no libraries for CUDA are pinned for $architecture"

gpus=("$root"/dev/nvidia[0-9]*)
version=$(driver_version)
if [ -e "$root/dev/dxg" ] && [ ${#gpus[@]} = 0 ]; then
    [ -n "$version" ] || refuse "an NVIDIA GPU with its Windows driver, $needed or newer: nvidia-smi finds none from WSL"
elif [ ${#gpus[@]} = 0 ]; then
    if [ -n "$version" ]; then
        refuse "access to the GPU: driver $version is loaded, but there is no /dev/nvidia0; start a container with --gpus all (see docs/containers.md), or run nvidia-smi as root, which creates it"
    elif has_nvidia_pci_device; then
        loaded="no driver is loaded"
        [ ! -e "$root/sys/module/nouveau" ] || loaded="its driver is nouveau, which does not support CUDA"
        refuse "the NVIDIA driver, $needed or newer: this machine has an NVIDIA GPU, but $loaded; $install"
    fi
    refuse "an NVIDIA GPU with its driver, $needed or newer: this machine has none (no /dev/nvidia0, no NVIDIA device on the PCI bus)"
fi
[ -z "$version" ] || [ "${version%%.*}" -ge $needed ] ||
    refuse "the NVIDIA driver $needed or newer, for CUDA 13: this machine has driver $version; $install"

libraries=$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p)
IFS=: read -ra directories <<< "${LD_LIBRARY_PATH:-}"
for directory in "${directories[@]}"; do
    [ ! -e "$directory/libcuda.so.1" ] || libraries+=libcuda.so.1
done
[[ $libraries == *libcuda.so.1* ]] ||
    refuse "libcuda.so.1, a library of the NVIDIA driver${version:+ $version}: it is missing; install the driver's libraries for computing (Debian: libcuda1; Ubuntu: libnvidia-compute-${version%%.*}), and in containers set NVIDIA_DRIVER_CAPABILITIES=compute,utility"
