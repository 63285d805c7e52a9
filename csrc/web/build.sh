#!/bin/sh
# Builds the engine for the web page: csrc/web/build.sh OUT.wasm (Debian: apt install clang lld)
set -eu
here=$(dirname "$0")
${CLANG:-clang} --target=wasm32 -msimd128 -mbulk-memory -mnontrapping-fptoint -std=c99 -O3 -ffp-contract=off \
    -nostdlib -ffreestanding -fvisibility=hidden -DSQZ_FREESTANDING -Wall -Wextra -Werror \
    -Wl,--no-entry,--strip-all,--gc-sections,-z,stack-size=131072,--initial-memory=262144 \
    -o "$1" "$here"/sqz_web.c "$here"/../sqz_*.c "$here"/../kernels.c "$here"/../kernels_scalar.c "$here"/../kernels_wasm.c
