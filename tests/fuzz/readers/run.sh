#!/usr/bin/env bash
# Fuzzes the readers of files that users supply with libFuzzer: tests/fuzz/readers/run.sh SECONDS [TARGET…]
#
# Coverage instrumentation works on stable Rust with the flags below, which are those of `cargo fuzz` without a sanitizer. A crash,
# a hang (10 s) or an allocation over 1 GiB ends a target with exit code 1; the input is in target/fuzz-readers/TARGET/found.
# Fix the reader and add the input to its tests.
set -euo pipefail
cd "$(dirname "$0")/../../.."
seconds=$1
shift
targets=("${@:-}")
[ -n "${targets[*]}" ] || targets=(card checkpoint features journal manifest onnx recipe)

# The configuration that setup wrote for OpenCV is not needed: the readers build without media.
flags='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters'
flags+=' -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares'
export CARGO_TARGET_DIR=$PWD/target/fuzz-readers/build
# With --target, the flags do not apply to build scripts and procedural macros.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$flags" cargo build --profile fuzz --quiet --package fuzz-readers --target "$host" --bins
programs=$CARGO_TARGET_DIR/$host/fuzz

seed() { # the initial corpus of a target
    case $1 in
        card) cp models/*.toml fixtures/models/*.toml "$2" ;;
        checkpoint) cp fixtures/checkpoints/*.pth fixtures/checkpoints/*.safetensors "$2" ;;
        features) # see `features` in src/readers.rs
            # Three rows of two features.
            { printf '\0\x93NUMPY\1\0\x46\0%-69s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"; printf 'abcdefghijklmnopqrstuvwx'; } >"$2/npy"
            printf '\3id,f0,f1\na,1,2\nb,3,4\n' >"$2/csv"
            for file in fixtures/features/*.mat fixtures/features/matlab/test[!h]*.mat; do { printf '\4'; cat "$file"; } >"$2/${file##*/}"; done
            for file in fixtures/features/*.pt; do { printf '\5'; cat "$file"; } >"$2/${file##*/}"; done
            ;;
        journal) # see `journal` in src/readers.rs
            local source='{"start_frame":0,"start_seconds":0.0,"end_seconds":0.5,"padded":false}'
            local clip='{"Clip":{"id":"a","path":"a.mp4","frame_count":8,"fps":25.0,"duration_seconds":0.5,"rows":'
            printf '\0kinojnl1' >"$2/empty"
            printf '\1%s[%s],"counts":null}}\xfe0123456789abcdef' "$clip" "$source" >"$2/features"
            printf '\2%s[%s,%s],"counts":[1,2]}}\xfe012345678' "$clip" "$source" "$source" >"$2/descriptors"
            printf '\1{"Failure":{"id":"a","stage":"decode","error":"e"}}\xff{"Seconds":1.5}\xff{"Provider":"native-avx2"}' >"$2/others"
            ;;
        manifest)
            printf '\0id,path,labels,split,group,start,end,year\na,a.mp4,x|y,train,g,0.5,2,1999\nb,"b,c.mkv",z,val,,,,\n' >"$2/csv"
            printf '\0Id,Category\na.jpg,cat\nb.jpg,dog\n' >"$2/categories"
            printf '\1a.mp4\nfolder/b.mkv\n# comment\n' >"$2/list"
            printf '\0\xef\xbb\xbfid;path;label\r\n1;a.mp4;"x ""y"""\r\n' >"$2/semicolons"
            ;;
        onnx)
            cp fixtures/models/*.onnx "$2"
            # A model whose only initializer is stored in the file x.data.
            printf '\x3a\x18\x2a\x16\x6a\x12\x0a\x08location\x12\x06x.data\x70\x01' >"$2/external"
            ;;
        recipe) cp pipelines/*.toml "$2" ;;
    esac
}

failed=0
for target in "${targets[@]}"; do
    folder=target/fuzz-readers/$target
    mkdir -p "$folder/corpus" "$folder/found"
    seed "$target" "$folder/corpus"
    echo "fuzzing the $target reader for $seconds s"
    if "$programs/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -malloc_limit_mb=1024 -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="$folder/found/" "$folder/corpus" >"$folder/log" 2>&1; then
        grep -E 'number_of_executed_units|average_exec_per_sec|peak_rss' "$folder/log" | sed 's/^/  /'
        grep -E 'cov: ' "$folder/log" | tail -1 | sed 's/^/  /'
    else
        failed=1
        grep -vE '^#[0-9]' "$folder/log" | tail -20
    fi
    rm -rf /dev/shm/fuzz-readers*
done
exit $failed
