#!/usr/bin/env bash
# Installs missing Python packages of the benchmarks into .venv-bench: benches/venv.sh REQUIREMENTS…
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-bench
for file in "$@"; do
    stamp=$venv/$(basename "$file")
    cmp -s "$file" "$stamp" && continue
    echo "bench: installing $file into $venv" >&2
    [ -d $venv ] || python3 -m venv $venv
    $venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: --requirement "$file" || {
        echo "bench: installing failed: Python 3.11 to 3.13 on Linux (x86-64 or arm64) and access to a package index are needed" >&2
        exit 1
    }
    cp "$file" "$stamp"
done
