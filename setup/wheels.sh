# Sourced by libtorch.sh and runtime.sh, in the source directory.

# download_wheels NAME VARIANT REMEDY: downloads the wheels that setup/NAME[-VARIANT]-ARCHITECTURE.txt pins by hash into a temporary
# directory. Ends the script if they are already unpacked, and with an error and its remedy if none are pinned for this architecture.
# Sets $architecture, $wheels (the directory), $pins (the list) and $stamp, to which the caller copies the list when it has unpacked them.
download_wheels() {
    architecture=$(uname -m)
    pins=setup/$1${2:+-$2}-$architecture.txt
    stamp=third_party/$1${2:+-$2}.pins
    [ -f "$pins" ] || { echo "setup: no wheels are pinned for $architecture${2:+ with $2}: $3" >&2; exit 1; }
    cmp -s "$pins" "$stamp" && exit 0

    echo "setup: downloading $(sed 's/ --hash.*//' "$pins" | paste -sd' ') into third_party" >&2
    mkdir -p third_party
    wheels=$(mktemp -d third_party/wheels.XXXXXX)
    trap 'rm -rf "$wheels"' EXIT
    # The libraries do not depend on the version of Python, so that one pinned wheel serves every interpreter.
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
        --python-version 3.11 --implementation cp --abi cp311 --abi none --platform "manylinux_2_28_$architecture" \
        --platform "manylinux_2_27_$architecture" --platform "manylinux_2_25_$architecture" \
        --platform "manylinux_2_18_$architecture" --platform "manylinux2014_$architecture" \
        --dest "$wheels" --requirement "$pins"
}
