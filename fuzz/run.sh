#!/bin/sh
# fuzz/run.sh FOLDER SECONDS: builds the C fuzzers, makes seeds and runs each harness for that long, the Python reader's
# too (Debian: apt install clang libclang-rt-14-dev; pip install atheris). Crashing inputs are left in FOLDER.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
mkdir -p "$1"
cd "$1"
export PYTHONPATH="$root/src"
export ASAN_OPTIONS=quarantine_size_mb=4:malloc_context_size=4
[ -d file ] || "$python" "$root/fuzz/make_corpus.py" .

# run NAME CORPUS COMMAND...
run() {
    name=$1 corpus=$2
    shift 2
    "$@" "$corpus" -max_total_time="$seconds" -timeout=1 -rss_limit_mb=512 -malloc_limit_mb=64 -max_len=1024 \
        -print_final_stats=1 >"$name.log" 2>&1 || {
        tail -40 "$name.log"
        exit 1
    }
    echo "$name: $(sed -n 's/^stat::\(number_of_executed_units\|peak_rss_mb\): */\1 /p' "$name.log" | tr '\n' ' ')"
}

seconds=$2
for name in file stream coded; do
    # Comparisons are not traced: seeds hold the magic bytes and checksums are mended, so that would only halve the speed.
    sources=$(ls "$root"/csrc/*.c)
    [ $name != coded ] || sources= # it includes what it needs
    # shellcheck disable=SC2086
    ${CLANG:-clang} -std=c99 -g -O2 -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
        -fno-sanitize-coverage=trace-cmp -fno-sanitize-recover=undefined -ffp-contract=off \
        -DSQZ_NO_THREADS -DSQZ_KEEP_LOOPS -DSQZ_AVXVNNI_AS_AVX512VL \
        "$root/fuzz/fuzz_$name.c" $sources -o "fuzz_$name"
    run "$name" "$name" ./"fuzz_$name"
done
mkdir -p reader # its own finds; the seeds are the files
cp file/seed-* reader/
run reader reader "$python" "$root/fuzz/fuzz_reader.py"
