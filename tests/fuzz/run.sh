#!/usr/bin/env bash
# Starts the server on a free port and sends it corrupted uploads.
# Arguments: the server program, the directory of the models, the time in seconds.
#   tests/fuzz/run.sh target/release/kinoprobe-serve runs/posters 600
set -euo pipefail
log=$(mktemp)
"$1" --models "$2" --addr 127.0.0.1:0 >"$log" &
server=$!
trap 'kill $server 2>/dev/null || true; rm -f "$log"' EXIT
until grep -q '^http' "$log"; do
    kill -0 $server || exit 1
    sleep 0.1
done
python3 "$(dirname "$0")/upload.py" "$(head -1 "$log")" --seconds "$3"
kill -0 $server
