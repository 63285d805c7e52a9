"""Exported C: compiled with every warning an error, run here and on ARM, compared to the bit."""

import contextlib
import errno
import os
import re
import subprocess
from unittest import mock

import numpy as np
import pytest

from exported import SPECS, bytes_of, contents_of, imagenet_sized, need, pixels_for
from networks import random_network, tiny_spec
from squeezenet import Labels, SqzFile, export, find_model
from squeezenet.codec.native_weights import encode_weights_alone
from squeezenet.engine import ReferenceEngine, native_kernels
from squeezenet.errors import DataError
from squeezenet.exports import build_c_source
from squeezenet.fileformat import decode_sqz, encode_sqz
from squeezenet.memory import STACK_BYTES, WEIGHTS

CPP = ["-x", "c++", "-Wall", "-Wextra", "-Werror"]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror"]

# Reads images, writes logits, maps, feature vectors and whether these are unknown; all lies at an odd address, between
# marks that must stay.
DRIVER = """
#include <stdio.h>
#include <string.h>
#include "net.h"
enum { PIXELS = NET_INPUT_SIZE * NET_INPUT_SIZE * 3 };
static unsigned char arena[NET_ARENA_BYTES + 2], pixels[PIXELS];
static double logits[NET_CLASSES], map[NET_MAP_SIZE * NET_MAP_SIZE * NET_CLASSES];
static int32_t features[NET_FEATURES];
static int row_of(void *image, int row, uint8_t *rgb) {
    memcpy(rgb, (unsigned char *)image + (size_t)row * NET_INPUT_SIZE * 3, NET_INPUT_SIZE * 3);
    return 0;
}
int main(void) {
    static double again[NET_CLASSES];
    memset(arena, 0xA5, sizeof arena);
    if (net_run(arena + 1, pixels, logits, NULL) == 0) return 1;                /* not opened yet */
    if (net_open(arena + 1, NET_ARENA_BYTES - 1) == 0) return 2;                /* too small */
    if (net_open(arena + 1, NET_ARENA_BYTES)) return 3;
    if (net_selftest(arena + 1, logits)) return 8;
    if (net_label(-1) || net_label(NET_CLASSES) || !net_label(NET_CLASSES - 1)) return 4;
    while (fread(pixels, sizeof pixels, 1, stdin) == 1) {
        if (net_run(arena + 1, pixels, logits, map)) return 5;
        fwrite(logits, sizeof logits, 1, stdout);
        fwrite(map, sizeof map, 1, stdout);
        if (net_features(arena + 1, pixels, NULL, features)) return 7;
        fwrite(features, sizeof features, 1, stdout);
        fputc(net_is_unknown(features), stdout);
        if (net_run_rows(arena + 1, row_of, pixels, again, map, features)) return 9;
        if (memcmp(again, logits, sizeof logits)) return 10;
    }
    return arena[0] == 0xA5 && arena[NET_ARENA_BYTES + 1] == 0xA5 ? 0 : 6;
}
"""

# Runs the network on a stack of its own, filled with a pattern, and prints how much of it was used.
STACK_DRIVER = """
#define _XOPEN_SOURCE 600
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include "net.h"
static unsigned char arena[NET_ARENA_BYTES], pixels[NET_INPUT_SIZE * NET_INPUT_SIZE * 3], stack[1 << 18];
static double logits[NET_CLASSES];
static ucontext_t home, away;
static void work(void) {
    if (net_open(arena, sizeof arena) == 0) net_run(arena, pixels, logits, NULL);
}
int main(void) {
    size_t unused = 0;
    memset(stack, 0xA5, sizeof stack);
    getcontext(&away);
    away.uc_stack.ss_sp = stack;
    away.uc_stack.ss_size = sizeof stack;
    away.uc_link = &home;
    makecontext(&away, work, 0);
    swapcontext(&home, &away);
    while (stack[unused] == 0xA5) unused++;
    printf("%lu", (unsigned long)(sizeof stack - unused));
    return 0;
}
"""


@pytest.fixture(autouse=True)
def engine():
    if not native_kernels():
        pytest.skip("needs the native engine")


def build(folder, data, driver=DRIVER, *, compiler="gcc", flags=(*STRICT, "-O1"), weights=None):
    need(compiler)
    source = build_c_source(data, "net", weights=weights)
    for name, text in (("net.c", source.source), ("net.h", source.header), ("main.c", driver)):
        (folder / name).write_text(text)
    subprocess.run([compiler, *flags, "main.c", "net.c", "-o", "program"], cwd=folder, check=True)
    return folder / "program"


def expected_output(contents, pixels, byte_order="<"):
    reference = ReferenceEngine(contents.network)
    logits, features = reference.outputs(pixels)
    unknown = contents.unknown.is_unknown(features) if contents.unknown else np.zeros(len(pixels), bool)
    doubles = [part.astype(f"{byte_order}f8") for part in (logits, reference.activation_map(pixels))]
    outputs = *doubles, features.astype(f"{byte_order}i4"), unknown
    return b"".join(part.tobytes() for parts in zip(*outputs, strict=True) for part in parts)


def run(command, pixels=b""):
    return subprocess.run(command, input=bytes(pixels), stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", SPECS)
def test_compiled_network_gives_equal_bits(tmp_path, name, weights):
    pixels = pixels_for(contents_of(name), 3)
    program = build(tmp_path, bytes_of(name), weights=weights)
    assert run([program], pixels.tobytes()) == expected_output(contents_of(name), pixels)


# gnu99 contracts unless told otherwise; with half-precision instructions, FLT_EVAL_METHOD is 16.
@pytest.mark.parametrize("processor", ["armv8-a", "armv8.2-a+fp16"])
@pytest.mark.parametrize("name", ["odd", "cifar"])
def test_on_arm_it_gives_equal_bits_even_where_the_compiler_may_fuse(tmp_path, name, processor):
    need("qemu-aarch64")
    pixels = pixels_for(contents_of(name), 2)
    flags = ("-std=gnu99", f"-march={processor}", "-Wall", "-Wextra", "-Werror", "-O2", "-static")
    program = build(tmp_path, bytes_of(name), compiler="aarch64-linux-gnu-gcc", flags=flags)
    assert run(["qemu-aarch64", program], pixels.tobytes()) == expected_output(contents_of(name), pixels)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", ["odd", "cifar10"])
def test_on_a_big_endian_processor_it_gives_equal_bits(tmp_path, name, weights):
    need("qemu-ppc")
    data = bytes_of(name) if name in SPECS else find_model(name).path.read_bytes()
    contents = decode_sqz(data)
    pixels = pixels_for(contents, 2)
    flags = (*STRICT, "-O2", "-static")
    program = build(tmp_path, data, compiler="powerpc-linux-gnu-gcc", flags=flags, weights=weights)
    assert run(["qemu-ppc", program], pixels.tobytes()) == expected_output(contents, pixels, ">")


@pytest.mark.parametrize("compiler", ["gcc", "aarch64-linux-gnu-gcc"])
def test_imagenet_network_gives_equal_bits(tmp_path, compiler):
    data, contents = imagenet_sized()
    pixels = pixels_for(contents, 1)
    is_arm = compiler != "gcc"
    if is_arm:
        need("qemu-aarch64")
    program = build(tmp_path, data, compiler=compiler, flags=(*STRICT, "-O2", *(["-static"] if is_arm else [])))
    command = ["qemu-aarch64", program] if is_arm else [program]
    assert run(command, pixels.tobytes()) == expected_output(contents, pixels)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_strictest_flags_find_nothing(tmp_path, compiler, weights):
    flags = (*STRICT, "-pedantic", "-O3", "-Wshadow", "-Wcast-align")
    build(tmp_path, bytes_of("odd"), compiler=compiler, flags=flags, weights=weights)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3", "-Os"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_stack_stays_below_what_the_header_says(tmp_path, compiler, level, weights):
    flags = ("-std=c99", level, "-Wl,-z,now")  # the loader's own work is done before
    program = build(tmp_path, bytes_of("odd"), STACK_DRIVER, compiler=compiler, flags=flags, weights=weights)
    assert 500 < int(run([program])) <= STACK_BYTES[weights]


def test_two_networks_link_into_one_program(tmp_path):
    need("gcc")
    for name in ("one", "two"):
        source = build_c_source(bytes_of("plain"), name)
        (tmp_path / f"{name}.c").write_text(source.source)
        (tmp_path / f"{name}.h").write_text(source.header)
    (tmp_path / "main.c").write_text(
        '#include "one.h"\n#include "two.h"\nint main(void) { return one_label(0) == two_label(0); }\n'
    )
    subprocess.run(["gcc", *STRICT, "main.c", "one.c", "two.c", "-o", "program"], cwd=tmp_path, check=True)
    run([tmp_path / "program"])


LEGAL_NAMES = """squeezenet SqueezeNet SQUEEZENET sqz SQZ sqz_internal model run plan pack parse decode hash kernels
    threads scalar SCALAR class std STDINT _STDINT stdlib NULL int8_t UINT32 SIZE EOF errno _ x X9 __net api"""


@pytest.mark.parametrize("name", LEGAL_NAMES.split())
def test_any_legal_name_compiles_as_c_and_as_cpp(tmp_path, name):
    need("gcc", "g++")
    source = build_c_source(bytes_of("plain"), name)
    (tmp_path / f"{name}.c").write_text(source.source)
    (tmp_path / f"{name}.h").write_text(source.header)
    for command in (["gcc", *STRICT], ["g++", *CPP]):
        subprocess.run([*command, "-fsyntax-only", f"{name}.c"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_compiled_as_cpp_it_gives_equal_bits(tmp_path, compiler):
    pixels = pixels_for(contents_of("odd"), 2)
    program = build(tmp_path, bytes_of("odd"), compiler=compiler, flags=(*CPP, "-pedantic", "-std=c++11", "-O1"))
    assert run([program], pixels.tobytes()) == expected_output(contents_of("odd"), pixels)


@pytest.mark.parametrize("command", [["gcc", *STRICT], ["g++", *CPP]])
def test_two_networks_can_be_included_into_one_file(tmp_path, command):
    """As sketches for small boards do; nothing but the networks' own names is defined."""
    need(command[0])
    lines = []
    for name in ("one", "decode"):
        source = build_c_source(bytes_of("plain"), name)
        (tmp_path / f"{name}.c").write_text(source.source)
        (tmp_path / f"{name}.h").write_text(source.header)
        lines.append(f'#include "{name}.c"')
        defined = re.findall(r"^#define (\w+)", source.source + source.header, re.MULTILINE)
        assert [macro for macro in defined if not macro.upper().startswith((f"{name.upper()}_", "SQUEEZENET_"))] == []
    (tmp_path / "main.c").write_text(
        "\n".join(lines) + "\nint main(void) { return one_label(0)[0] != decode_label(0)[0]; }\n"
    )
    subprocess.run([*command, "main.c", "-o", "program"], cwd=tmp_path, check=True)
    run([tmp_path / "program"])


def test_source_takes_no_memory_and_keeps_no_state():
    source = build_c_source(bytes_of("plain"), "net").source
    assert not re.findall(r"\b(?:malloc|calloc|realloc|free|alloca|fopen|printf)\s*\(", source)
    assert not re.findall(r"^static (?!const|inline|void|int|uint|size_t|double|float|net_)\w+ \w+(?:\[.*\])?(?: =|;)",
                          source, re.MULTILINE)  # fmt: skip


def test_foreign_names_stay_in_their_strings(tmp_path):
    names = ('"); system("x', "??/", "\\", "\n", "مرحبا <b> 100 %")
    contents = SqzFile(network=random_network(tiny_spec(), seed=4), labels=Labels(names))
    driver = """
    #include <stdio.h>
    #include "net.h"
    int main(void) { for (int i = 0; i < NET_CLASSES; i++) printf("%s|", net_label(i)); return 0; }
    """
    program = build(tmp_path, encode_sqz(contents), driver)
    assert run([program]).decode() == "".join(f"{name}|" for name in names)


def test_header_says_what_the_network_needs():
    source = build_c_source(bytes_of("plain"), "net")
    assert f"#define NET_ARENA_BYTES {source.arena_bytes}\n" in source.header
    assert f"#define NET_RAM_BYTES {source.memory.ram_bytes}\n" in source.header
    assert f"#define NET_FLASH_BYTES {source.memory.flash_bytes}\n" in source.header
    assert "#define NET_CLASSES 5\n" in source.header


def test_the_fastest_form_that_fits_is_taken():
    data = bytes_of("odd")
    flash, ram, coded = (build_c_source(data, "net", weights=weights).memory for weights in WEIGHTS)
    assert flash.ram_bytes < coded.ram_bytes < ram.ram_bytes
    assert flash.constant_bytes > coded.constant_bytes > ram.constant_bytes
    assert build_c_source(data, "net", max_ram=flash.ram_bytes).memory == flash
    assert build_c_source(data, "net", max_flash=flash.flash_bytes).memory == flash
    with pytest.raises(DataError, match=rf"fits `max_ram` of .*: flash takes {flash.ram_bytes:,} bytes of RAM"):
        build_c_source(data, "net", max_ram=flash.ram_bytes - 1)
    with pytest.raises(DataError, match="expected `weights` to be one of flash, ram, coded, got 'rom'"):
        build_c_source(data, "net", weights="rom")


def test_coded_weights_are_encoded_once():
    with mock.patch("squeezenet.memory.encode_weights_alone", wraps=encode_weights_alone) as encode:
        build_c_source(bytes_of("odd"), "net", weights="coded")
    assert encode.call_count == 1


def test_coded_weights_are_taken_where_neither_of_the_others_fits():
    data, contents = imagenet_sized()
    flash, ram, coded = (build_c_source(data, "net", contents, weights=weights).memory for weights in WEIGHTS)
    assert coded.ram_bytes <= 160_000 < ram.ram_bytes
    assert coded.flash_bytes - len(data) < 100_000 < flash.flash_bytes - coded.flash_bytes
    limits = {"max_ram": coded.ram_bytes, "max_flash": coded.flash_bytes}
    assert build_c_source(data, "net", contents, **limits).memory == coded
    with pytest.raises(DataError, match=rf"; coded takes {coded.ram_bytes:,} bytes of RAM"):
        build_c_source(data, "net", contents, max_ram=coded.ram_bytes - 1, max_flash=coded.flash_bytes)


@pytest.mark.parametrize("name", SPECS)
def test_the_arena_is_what_the_hungriest_layers_take(name):
    data, frame = bytes_of(name), 3 * 64
    flash, coded = (build_c_source(data, "net", weights=weights).memory for weights in ("flash", "coded"))
    assert 0 <= flash.arena_bytes - frame - max(size for _, size in flash.layers) <= 512
    assert 0 <= coded.arena_bytes - frame - max(size for _, size in coded.layers) <= coded.arena_bytes // 20
    assert [name for name, _ in coded.layers][-1] == f"conv{len(SPECS[name].fires) + 2}"


def test_a_damaged_stream_ends_the_run(tmp_path):
    """Whatever its bytes are: nothing is written beside the arena, and the run ends with an error or other logits."""
    source = build_c_source(bytes_of("odd"), "net", weights="coded")
    start, lines, end = re.split(r"(?<=net_own_weights\[)(\d+\] = \{\n(?:.*,\n)+)(?=\};)", source.source, maxsplit=1)
    driver = """
    #include "net.h"
    static unsigned char arena[NET_ARENA_BYTES];
    static double logits[NET_CLASSES];
    int main(void) { return net_open(arena, sizeof arena) ? 2 : net_selftest(arena, logits); }
    """
    (tmp_path / "net.h").write_text(source.header)
    (tmp_path / "main.c").write_text(driver)
    rng = np.random.default_rng(3)
    statuses = set()
    for damage in (0, 1, 200):
        bytes_at = list(re.finditer(r"(?<=[\n,])\d+(?=,)", lines))
        text = lines
        for match in sorted(rng.choice(bytes_at, damage, replace=False), key=lambda match: -match.start()):
            text = text[: match.start()] + str(int(rng.integers(256))) + text[match.end() :]
        (tmp_path / "net.c").write_text(start + text + end)
        flags = [*STRICT, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        subprocess.run(["gcc", *flags, "main.c", "net.c", "-o", "program"], cwd=tmp_path, check=True)
        statuses.add(subprocess.run([tmp_path / "program"], timeout=60).returncode)
    assert 0 in statuses
    assert len(statuses) > 1
    assert statuses <= {0, 2, 3, 6}


def test_networks_in_one_file_share_their_engine(tmp_path):
    need("gcc")
    sizes = []
    for names in (("one",), ("one", "two")):
        for name in names:
            source = build_c_source(bytes_of("plain"), name)
            (tmp_path / f"{name}.c").write_text(source.source)
            (tmp_path / f"{name}.h").write_text(source.header)
        (tmp_path / "nets.c").write_text("".join(f'#include "{name}.c"\n' for name in names))
        subprocess.run(["gcc", *STRICT, "-Os", "-c", "nets.c"], cwd=tmp_path, check=True)
        listed = subprocess.run(["size", "nets.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        sizes.append(int(listed.splitlines()[1].split()[0]))
    constants = build_c_source(bytes_of("plain"), "one").memory.constant_bytes
    assert sizes[1] - sizes[0] < constants + 3000


def test_self_test_finds_a_wrong_weight(tmp_path):
    source = build_c_source(bytes_of("plain"), "net")
    driver = """
    #include "net.h"
    static unsigned char arena[NET_ARENA_BYTES];
    static double logits[NET_CLASSES];
    int main(void) { return net_open(arena, sizeof arena) ? 2 : net_selftest(arena, logits) != 0; }
    """
    conv1 = re.search(r"net_own_weights\[\d+\] = \{\n((?:.*\n){8})", source.source)[1]
    changed = source.source.replace(conv1, re.sub(r"-?\d+", lambda match: str(int(match[0]) ^ 8), conv1), 1)
    (tmp_path / "net.h").write_text(source.header)
    (tmp_path / "main.c").write_text(driver)
    for text, expected in ((source.source, 0), (changed, 1)):
        (tmp_path / "net.c").write_text(text)
        subprocess.run(["gcc", *STRICT, "main.c", "net.c", "-o", "program"], cwd=tmp_path, check=True)
        assert subprocess.run([tmp_path / "program"]).returncode == expected


def test_header_says_when_to_believe_the_network():
    header = build_c_source(bytes_of("odd"), "net").header
    assert "#define NET_TEMPERATURE 0.75" in header
    assert "#define NET_HAS_UNKNOWN 1" in header
    assert "NET_UNKNOWN_BELOW" not in header
    network = contents_of("plain").network
    header = build_c_source(encode_sqz(SqzFile(network=network, facts={"unknown_below": 0.5})), "net").header
    assert "#define NET_TEMPERATURE 1.0" in header
    assert "#define NET_HAS_UNKNOWN 0" in header
    assert "#define NET_UNKNOWN_BELOW 0.5" in header


def test_compiled_rule_tells_images_apart():
    contents = contents_of("odd")
    unknown = contents.unknown.is_unknown(ReferenceEngine(contents.network).features(pixels_for(contents, 20)))
    assert 0 < unknown.sum() < 20  # so that equal bits mean something


@pytest.mark.parametrize("name", ["1net", "a b", "", "int", "é", "x;"])
def test_impossible_prefix_is_refused(name):
    with pytest.raises(DataError, match="expected a C identifier for `name`"):
        build_c_source(bytes_of("plain"), name)


def test_files_are_named_after_the_output(tmp_path):
    (tmp_path / "m.sqz").write_bytes(bytes_of("plain"))
    written = export(tmp_path / "m.sqz", tmp_path / "2 nets.c")
    assert [path.name for path in written.files] == ["2 nets.c", "_2_nets.h"]
    assert '#include "_2_nets.h"' in (tmp_path / "2 nets.c").read_text()
    assert [path.name for path in export(tmp_path / "m.sqz", tmp_path / "花.c").files] == ["花.c", "network.h"]
    with pytest.raises(DataError, match=r"expected an output named \*\.c, got "):
        export(tmp_path / "m.sqz", tmp_path / "m.cpp", to="c")


@pytest.mark.parametrize("fails_at", range(4))
def test_a_pair_that_cannot_be_written_leaves_the_old_pair(tmp_path, monkeypatch, fails_at):
    """A full disk shows when files are synced: both before either takes its place, then the folder, twice."""
    export(SqzFile(network=random_network(tiny_spec(num_classes=3))), tmp_path / "m.c")
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == fails_at + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with contextlib.suppress(OSError):
        export(SqzFile(network=random_network(tiny_spec(num_classes=10))), tmp_path / "m.c")
    assert len(calls) > fails_at
    classes = [
        re.search(r"(?:M_CLASSES|labels\[)\s*(\d+)", (tmp_path / name).read_text())[1] for name in ("m.h", "m.c")
    ]
    assert classes[0] == classes[1], "the header is of one network, the source of another"
    assert {path.name for path in tmp_path.iterdir()} == set(old)
    if fails_at < 2:
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
