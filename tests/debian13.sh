#!/usr/bin/env bash
# Runs a command, by default `make test`, on a checkout of a revision in a minimal Debian 13 (trixie) chroot. Needs root.
#   tests/debian13.sh                                make test
#   tests/debian13.sh cargo check --all-targets      another command
# Environment:
#   REVISION=HEAD                           revision to check out
#   SUITE=trixie                            another Debian release
#   CHROOT=/var/tmp/kinoprobe-$SUITE        directory of the chroot, which is kept for the next run; remove it to start over
#   MIRROR                                  Debian mirror (default: the one that this system's apt uses)
#
# The system's packages come from the mirror. The Rust toolchain and the downloaded crates are those of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "debian13: $*" >&2; exit 1; }

suite=${SUITE:-trixie}
root=${CHROOT:-/var/tmp/kinoprobe-$suite}
[ $# -gt 0 ] || set -- make test

[ "$(id -u)" = 0 ] || fail "creating a chroot needs root: run this with sudo -E"
command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.89 or newer"
toolchain=$(rustc --print sysroot)
cargo_home=${CARGO_HOME:-$HOME/.cargo}

if [ ! -e "$root/.bootstrapped" ]; then
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap >&2; }
    mirror=${MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -1)}
    [ -n "$mirror" ] || fail "apt names no mirror: set MIRROR to the URL of a Debian mirror"
    echo "debian13: installing $suite from $mirror into $root" >&2
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >&2
    touch "$root/.bootstrapped"
fi

# Name resolution and certificates of this machine.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"

# Files of the last checkout are removed. Build outputs are kept outside of it; the new modification times (--touch) make Cargo
# rebuild this package.
rm -rf "$root/src"
mkdir -p "$root/src" "$root/opt/rust" "$root/root/.cargo"
git archive "${REVISION:-HEAD}" | tar --extract --touch --directory "$root/src"
# Crates are copied, because Cargo writes into this directory.
if [ -d "$cargo_home/registry" ]; then
    mkdir -p "$root/root/.cargo/registry"
    for part in cache index; do cp -ru "$cargo_home/registry/$part" "$root/root/.cargo/registry/"; done
fi

# In a mount namespace of its own, so that no mount outlives the command.
export root toolchain
exec unshare --mount --propagation private bash -euc '
    mount --bind "$toolchain" "$root/opt/rust"
    mount -o remount,bind,ro "$root/opt/rust"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    certificates=/etc/ssl/certs/ca-certificates.crt
    exec env --ignore-environment HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive CARGO_TARGET_DIR=/root/target \
        SSL_CERT_FILE=$certificates PIP_CERT=$certificates ${http_proxy:+http_proxy=$http_proxy} ${https_proxy:+https_proxy=$https_proxy} \
        PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        chroot "$root" sh -euc '\''
            # The prerequisites that README.md names; setup/native.sh installs the others.
            command -v make >/dev/null && command -v gcc >/dev/null && command -v python3 >/dev/null || {
                apt-get update -qq
                apt-get install -y -qq --no-install-recommends make gcc libc6-dev python3 >/dev/null
            }
            cd /src
            exec "$@"
        '\'' sh "$@"
' bash "$@"
