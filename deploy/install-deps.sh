#!/bin/sh
# Installs what tessera needs to build, run and be tested, from Debian's (or Ubuntu's) packages: exactly this list.
#   deploy/install-deps.sh [--yes] [--print]
set -eu

BUILD="build-essential cmake ninja-build pkg-config protobuf-c-compiler
 libopenmpi-dev libgrpc-dev libprotobuf-c-dev libhwloc-dev libmicrohttpd-dev libjansson-dev
 libpcre2-dev libutf8proc-dev libxxhash-dev libsodium-dev libcurl4-gnutls-dev"
RUN="openmpi-bin openssh-client curl"
TEST="libcmocka-dev python3 python3-venv"
PACKAGES=$(echo $BUILD $RUN $TEST)

yes=no
for a in "$@"; do
    case $a in
        --yes) yes=yes ;;
        --print) echo "$PACKAGES"; exit 0 ;;
        *) echo "usage: $0 [--yes] [--print]" >&2; exit 2 ;;
    esac
done

if ! command -v apt-get >/dev/null; then
    echo "This script knows apt-get only. Install the equivalents of: $PACKAGES" >&2
    exit 1
fi

missing=""
for p in $PACKAGES; do
    dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
if [ -z "$missing" ]; then
    echo "dependencies: all installed"
    exit 0
fi
echo "dependencies to install:$missing"

sudo=""
if [ "$(id -u)" != 0 ]; then
    sudo=sudo
    command -v sudo >/dev/null || { echo "not root and no sudo here: ask an administrator to run this script" >&2; exit 1; }
    if [ $yes = no ]; then
        printf 'Install them with sudo apt-get? [Y/n] '
        read -r answer || answer=n
        case $answer in [nN]*) exit 1 ;; esac
    fi
fi
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
echo "dependencies: installed"
