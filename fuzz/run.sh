#!/bin/sh
# fuzz/run.sh FOLDER SECONDS: builds the C fuzzers, makes their seeds and runs each for that long (Debian: apt install
# clang libclang-rt-14-dev). Crashing inputs are left in FOLDER.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
cd "$1"
[ -d file ] || PYTHONPATH="$root/src" "${PYTHON:-python3}" "$root/fuzz/make_corpus.py" .
for name in file stream; do
    ${CLANG:-clang} -std=c99 -g -O2 -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
        -fno-sanitize-recover=undefined -ffp-contract=off -DSQZ_NO_THREADS -DSQZ_KEEP_LOOPS -DSQZ_AVXVNNI_AS_AVX512VL \
        "$root/fuzz/fuzz_$name.c" "$root"/csrc/*.c -o "fuzz_$name"
    ./"fuzz_$name" "$name" -max_total_time="$2" -timeout=1 -rss_limit_mb=512 -malloc_limit_mb=64 -max_len=1024 \
        -print_final_stats=1 2>"$name.log" || { tail -40 "$name.log"; exit 1; }
    grep -E "number_of_executed_units|average_exec_per_sec|peak_rss_mb" "$name.log"
done
