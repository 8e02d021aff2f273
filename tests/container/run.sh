#!/usr/bin/env bash
# Builds the image of the Dockerfile, and tests the programs in it as Kubernetes runs them: an unprivileged user, no capabilities, a
# read-only root file system, no network, SIGTERM to the first process. Called by `make test-container`.
# Environment:
#   ENGINE        docker or podman, with global flags (default: the first of them that is installed)
#   IMAGE         image to test; by default, it is built as kinoprobe:test
#   BUILD_FLAGS   flags of `build`, such as "--build-arg DEVICE=cuda"
#   RUN_FLAGS     flags of `run`
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "test-container: $*" >&2; exit 1; }
step() { echo "test-container: $*"; }

read -ra engine <<< "${ENGINE:-$(basename "$(command -v docker || command -v podman || fail "install docker or podman")")}"
read -ra build_flags <<< "${BUILD_FLAGS:-}"
read -ra run_flags <<< "${RUN_FLAGS:-}"
image=${IMAGE:-kinoprobe:test}
if [ -z "${IMAGE:-}" ]; then
    step "build"
    "${engine[@]}" build --tag "$image" ${build_flags[@]+"${build_flags[@]}"} .
fi

work=$(mktemp -d)
chmod 777 "$work"
trap '"${engine[@]}" rm --force kinoprobe-test >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
restricted=(--read-only --tmpfs /tmp --network none --cap-drop ALL --security-opt no-new-privileges --volume "$work:/data"
            --env KINOPROBE_CACHE=/data/models --env HDF5_USE_FILE_LOCKING=FALSE ${run_flags[@]+"${run_flags[@]}"})
run() { "${engine[@]}" run --rm "${restricted[@]}" "$image" "$@"; }
# $1: expected exit code; the rest: a command in the container.
expect() {
    local code=0
    run "${@:2}" || code=$?
    [ "$code" = "$1" ] || fail "exit code $code instead of $1: ${*:2}"
}

step "user and libraries"
[ "$(run id -u)" = 65532 ] || fail "not the unprivileged user"
! run touch /opt/kinoprobe/x 2>/dev/null || fail "the root file system is writable"
missing=$(run sh -c 'ldd /usr/local/bin/kinoprobe-*; find third_party -name "*.so*" -exec ldd {} +' | grep 'not found' | grep -v 'libcuda\.so\.1\|libnvinfer\|libnvonnxparser' | sort -u || true)
[ -z "$missing" ] || fail "missing libraries: $missing"
for program in $(run sh -c 'ls /usr/local/bin'); do
    run "$program" --version
done

step "extraction by shards, and their merge"
run kinoprobe-demo --out /data/demo --clips 2 >/dev/null
extract=(kinoprobe-extract --method resnet18 --weights seeded --manifest /data/demo/manifest.csv --quiet)
expect 0 "${extract[@]}" --frames 2 --out /data/single.h5
for index in 0 1; do
    run env JOB_COMPLETION_INDEX=$index "${extract[@]}" --frames 2 --out /data/features.h5 --shard=auto/2 --wait --allow-failed-clips
done
expect 0 kinoprobe-merge /data/features.shards --out /data/features.h5 --allow-failed-clips
expect 0 kinoprobe-inspect /data/features.h5 >/dev/null
expect 0 kinoprobe-extract --method sift --manifest /data/demo/manifest.csv --out /data/sift.descriptors.h5 --quiet

step "exit codes"
expect 2 kinoprobe-extract --unknown 2>/dev/null
expect 1 kinoprobe-merge /data/none.shards --out /data/none.h5 2>/dev/null
"${engine[@]}" run --detach --name kinoprobe-test "${restricted[@]}" "$image" "${extract[@]}" --frames 64 --out /data/stopped.h5 >/dev/null
for _ in {1..600}; do [ ! -e "$work/stopped.h5.partial" ] || break; sleep 0.1; done
"${engine[@]}" stop --time 60 kinoprobe-test >/dev/null
code=$("${engine[@]}" inspect --format '{{.State.ExitCode}}' kinoprobe-test)
[ "$code" = 130 ] || fail "exit code $code instead of 130 after SIGTERM"

step "passed; size of the image: $("${engine[@]}" image inspect --format '{{.Size}}' "$image" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
