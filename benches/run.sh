#!/usr/bin/env bash
# Measures speed against an equivalent Python implementation, the peer: sets up .venv-bench, generates clips and ONNX files, runs
# benches/bench.py.
#   PEER=torch benches/run.sh          also the stages long, mlp, bilstm, attentive and transformer, which need PyTorch
#   INT8=1 benches/run.sh              also the stages *-int8, which need NNCF
#   TRAIN=1 PEER=torch benches/run.sh  also the stages train-*, which need libtorch (make setup TRAIN=1), too
#   benches/run.sh --calibrate         measure which configuration of the peer is the fastest (benches/peer/fastest.json)
#   benches/run.sh --stages cnn3d --rounds 5 --clips 16
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-bench
requirements=(benches/peer/requirements.txt)
[ "${PEER:-}" = torch ] && requirements+=(benches/peer/requirements-torch.txt benches/peer/requirements-long.txt)
[ "${INT8:-}" = 1 ] && requirements+=(benches/peer/requirements-int8.txt)
benches/venv.sh "${requirements[@]}"
target=${CARGO_TARGET_DIR:-target}
features=()
[ "${TRAIN:-}" = 1 ] && features=(--features train)
cargo build --release --quiet --bins "${features[@]}"
clips=$target/bench/clips
[ -f "$clips/manifest.csv" ] || "$target/release/kinoprobe-demo" --out "$clips" --clips 6 --seed 1 --quiet
arguments=()
[ "${PEER:-}" = torch ] && arguments+=(--torch)
[ "${INT8:-}" = 1 ] && arguments+=(--int8)
[ "${TRAIN:-}" = 1 ] && arguments+=(--train)
exec $venv/bin/python benches/bench.py --clips-from "$clips" "${arguments[@]}" "$@"
