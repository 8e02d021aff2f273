#!/usr/bin/env bash
# Installs ONNX Runtime Web from its npm package (pinned version and hash) into third_party/onnxruntime-web, for
# `kinoprobe-serve --export`. Does nothing if that version is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
version=1.30.0
sha256=d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71
directory=third_party/onnxruntime-web
# The variant without WebGPU: it runs in every browser and needs no special headers.
files=(ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm)

[ "$(cat "$directory/VERSION" 2>/dev/null)" = "$version" ] && exit 0
command -v npm >/dev/null || { echo "setup: npm is missing: install Node.js 20 or newer, then run this again" >&2; exit 1; }
setup/runtime.sh # provides the license, which the npm package lacks

echo "setup: fetching onnxruntime-web $version into $directory" >&2
fresh=$(mktemp -d third_party/web.XXXXXX)
trap 'rm -rf "$fresh"' EXIT
package=$(cd "$fresh" && npm pack --silent --no-update-notifier "onnxruntime-web@$version")
echo "$sha256  $fresh/$package" | sha256sum --check --quiet >&2
tar --extract --gzip --file "$fresh/$package" --directory "$fresh" --strip-components=2 "${files[@]/#/package/dist/}"
cp third_party/onnxruntime/LICENSE "$fresh/LICENSE"
echo "$version" > "$fresh/VERSION"
rm "$fresh/$package"
chmod 755 "$fresh"
rm -rf "$directory"
mv "$fresh" "$directory"
