#!/bin/sh
# Builds the engine for the web page: csrc/web/build.sh OUT.wasm OUT_RELAXED.wasm (Debian: apt install clang-19 lld-19)
set -eu
here=$(dirname "$0")/..
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
compile() {
    for name in $2; do
        ${CLANG:-clang-19} --target=wasm32 -msimd128 -mbulk-memory -mnontrapping-fptoint -std=c99 $1 -ffp-contract=off \
            -ffreestanding -fvisibility=hidden -DSQZ_FREESTANDING -DSQZ_SMALL -Wall -Wextra -Werror \
            -c "$here/$name.c" -o "$objects/$(basename "$name").o"
    done
}
link() {
    ${WASM_LD:-wasm-ld-19} --no-entry --strip-all --gc-sections "$@"
}
compile -Os "web/sqz_web kernels sqz_batch sqz_hash sqz_model sqz_pack sqz_parse sqz_plan sqz_run sqz_schedule sqz_threads sqz_unknown"
compile -Os "sqz_decode sqz_encode sqz_teach sqz_novelty web/web_teach"
compile -O2 "kernels_rows kernels_wasm web/web_pixels"
link -z stack-size=131072 --initial-memory=262144 --export-table --growable-table -o "$1" "$objects"/*.o
rm "$objects"/*.o
compile "-O2 -mrelaxed-simd" "web/web_relaxed"
link --import-memory --initial-memory=65536 -z stack-size=0 -o "$2" "$objects"/*.o
