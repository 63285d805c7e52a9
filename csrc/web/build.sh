#!/bin/sh
# Builds the engine for the web page: csrc/web/build.sh OUT.wasm (Debian: apt install clang lld)
set -eu
here=$(dirname "$0")/..
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
compile() {
    for name in $2; do
        ${CLANG:-clang} --target=wasm32 -msimd128 -mbulk-memory -mnontrapping-fptoint -std=c99 "$1" -ffp-contract=off \
            -ffreestanding -fvisibility=hidden -DSQZ_FREESTANDING -DSQZ_SMALL -Wall -Wextra -Werror \
            -c "$here/$name.c" -o "$objects/$(basename "$name").o"
    done
}
compile -Os "web/sqz_web kernels sqz_hash sqz_model sqz_pack sqz_parse sqz_plan sqz_run sqz_threads"
compile -Os "sqz_decode"
compile -O2 "kernels_scalar kernels_wasm web/web_pixels"
${WASM_LD:-wasm-ld} --no-entry --strip-all --gc-sections -z stack-size=131072 --initial-memory=262144 \
    -o "$1" "$objects"/*.o
