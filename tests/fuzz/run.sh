#!/usr/bin/env bash
# Starts the server on a free port and breaks uploads to it.
#   tests/fuzz/run.sh target/release/kinoprobe-serve runs/posters 600
set -euo pipefail
said=$(mktemp)
"$1" --models "$2" --addr 127.0.0.1:0 >"$said" &
server=$!
trap 'kill $server 2>/dev/null || true; rm -f "$said"' EXIT
until grep -q '^http' "$said"; do
    kill -0 $server || exit 1
    sleep 0.1
done
python3 "$(dirname "$0")/upload.py" "$(head -1 "$said")" --seconds "$3"
kill -0 $server
