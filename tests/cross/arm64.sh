#!/bin/sh
# The engine, its kernels and their checks for ARM64: cross-compiled (preset arm64) and run under qemu's user emulation, which has every
# instruction set that there are kernels for. Skips where compiler or emulator are missing.
#   tests/cross/arm64.sh BUILD_FOLDER
set -eu
cd "$(dirname "$0")/../.."
build=$1
for need in aarch64-linux-gnu-gcc qemu-aarch64-static; do
    command -v $need >/dev/null && continue
    echo "skipped: no $need here (apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)"
    exit 77
done
cmake --preset arm64 -B "$build" >/dev/null
cmake --build "$build"
ctest --test-dir "$build" --output-on-failure -L cpu
# what a processor without the newer instructions gets
qemu-aarch64-static -cpu cortex-a57 -L /usr/aarch64-linux-gnu "$build/tests/test_kernels_ops" | grep -x "tables: ref neon"
