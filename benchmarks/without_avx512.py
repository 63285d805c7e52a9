"""ONNX Runtime as it runs on a processor without AVX-512 and without AVX-VNNI, on one that has them.

It has no option for that, so this patches a private copy of its library: each `cpuid` becomes an undefined instruction,
whose signal a small handler answers with the processor's own answer less those features. Nothing else changes, so the
kernels that it picks are the ones that it picks on such a processor.

Use this before anything else imports onnxruntime.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

HANDLER = r"""
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)r[REG_RIP];
    unsigned leaf = (unsigned)r[REG_RAX], sub = (unsigned)r[REG_RCX], a, b, c, d;
    (void)info;
    if (at[0] != 0x0F || at[1] != 0x0B) {
        signal(number, SIG_DFL);
        return;
    }
    __cpuid_count(leaf, sub, a, b, c, d);
    if (leaf == 7 && sub == 0) {
        b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
        c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
        d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
    }
    if (leaf == 7 && sub == 1) {
        a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);
        d &= ~(1u << 4 | 1u << 5 | 1u << 10);
    }
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

int install(void) {
    struct sigaction action = {0};
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return sigaction(SIGILL, &action, 0);
}
"""


def hide_avx512_from_onnxruntime(folder: Path) -> int:
    """Make the next `import onnxruntime` find the patched copy, kept in `folder`; returns how many places changed."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise SystemExit("expected onnxruntime to be installed")
    copy = folder / "onnxruntime"
    shutil.copytree(Path(spec.origin).parent, copy)
    library = next((copy / "capi").glob("onnxruntime_pybind11_state*.so"))
    n_patched = _patch(library)
    source, handler = folder / "handler.c", folder / "handler.so"
    source.write_text(HANDLER)
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", source, "-o", handler], check=True)
    if ctypes.CDLL(str(handler)).install() != 0:
        raise SystemExit("expected to install a signal handler")
    sys.path.insert(0, str(folder))
    return n_patched


def _patch(library: Path) -> int:
    sections = subprocess.run(["objdump", "-h", library], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\.text\s+\S+\s+(\S+)\s+\S+\s+(\S+)", sections)
    assert match is not None
    shift = int(match[2], 16) - int(match[1], 16)
    data = bytearray(library.read_bytes())
    n_patched = 0
    with subprocess.Popen(
        ["objdump", "-d", "-j", ".text", "--no-show-raw-insn", library], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\tcpuid\n"):
                at = int(line.split(":")[0], 16) + shift
                assert data[at : at + 2] == b"\x0f\xa2"
                data[at : at + 2] = b"\x0f\x0b"
                n_patched += 1
    library.write_bytes(data)
    return n_patched
