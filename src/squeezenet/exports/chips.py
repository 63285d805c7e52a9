"""Exported C on emulated microcontrollers: compiled for the core, linked into a memory of a given size, run by QEMU.

QEMU executes instructions, it does not model how long they take; with `-icount shift=0` it counts them.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .c_source import CSource

__all__ = ["CHIPS", "Chip", "ChipRun", "compile_for_chip", "missing_for", "run_on_chip"]

_PARTS = Path(__file__).with_name("chip")
_STACK_BYTES = 16 << 10
_TIMEOUT = 300  # seconds
_FIGURES = ("open", "run", "stack", "touched")


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A core, the machine of QEMU that has it, and that machine's memory."""

    name: str
    machine: str
    flags: tuple[str, ...]
    """Flags for the compiler."""
    flash_at: int
    flash_bytes: int
    ram_at: int
    ram_bytes: int
    vectors_at: int | None = None
    """Address of the core's vector table, if it is not the start of the flash memory."""
    counter_at: int | None = None
    """Address of a counter register; None if the counter is read by an instruction."""
    instructions_per_tick: int = 1

    @property
    def is_arm(self) -> bool:
        """Whether it is Arm's; else it is a RISC-V."""
        return self.machine.startswith("mps")

    @property
    def compiler(self) -> str:
        """GCC for it."""
        return "arm-none-eabi-gcc" if self.is_arm else "riscv64-unknown-elf-gcc"

    @property
    def emulator(self) -> str:
        """QEMU with its machine."""
        return "qemu-system-arm" if self.is_arm else "qemu-system-riscv32"


def _mps2(name: str, machine: str, *flags: str) -> Chip:
    return Chip(
        name=name, machine=machine, flags=("-mthumb", *flags), flash_at=0, flash_bytes=4 << 20, ram_at=0x20000000,
        ram_bytes=4 << 20, counter_at=0x40028018, instructions_per_tick=40,
    )  # fmt: skip


# The M0+ runs on the machine of an M3, which has all of its instructions. The clocks that count have 25 and 20 MHz, and
# an instruction takes a nanosecond.
CHIPS = {
    chip.name: chip
    for chip in (
        _mps2("Cortex-M0+", "mps2-an385", "-mcpu=cortex-m0plus"),
        _mps2("Cortex-M3", "mps2-an385", "-mcpu=cortex-m3"),
        _mps2("Cortex-M4", "mps2-an386", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
        _mps2("Cortex-M7", "mps2-an500", "-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
        Chip(
            name="Cortex-M33", machine="mps2-an505",
            flags=("-mthumb", "-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"), flash_at=0x10000000,
            flash_bytes=4 << 20, ram_at=0x80000000, ram_bytes=4 << 20, counter_at=0x40302018,
            instructions_per_tick=50,
        ),
        Chip(
            name="Cortex-M55", machine="mps3-an547", flags=("-mthumb", "-mcpu=cortex-m55", "-mfloat-abi=hard"),
            flash_at=0x60000000, flash_bytes=8 << 20, ram_at=0x70000000, ram_bytes=4 << 20, vectors_at=0,
            counter_at=0x49302018, instructions_per_tick=50,
        ),
        Chip(
            name="RISC-V 32", machine="virt", flags=("-march=rv32imac", "-mabi=ilp32", "--specs=picolibc.specs"),
            flash_at=0x80000000, flash_bytes=8 << 20, ram_at=0x84000000, ram_bytes=4 << 20,
        ),
    )
}  # fmt: skip
"""The emulated chips by name."""


@dataclass(frozen=True, kw_only=True)
class ChipRun:
    """The result of running one program on a chip."""

    logits: NDArray[np.float64]
    """(N, classes)"""
    features: NDArray[np.int32]
    """(N, channels)"""
    open_instructions: int
    run_instructions: int
    """Instructions for the last image."""
    stack_bytes: int
    arena_touched_bytes: int
    """Bytes of the arena that were written."""
    flash_bytes: int
    """Code, constants and initial data of the whole program."""
    ram_bytes: int
    """Data of the whole program, without the stack."""


def missing_for(chip: Chip) -> str | None:
    """Name the programs for a chip that are not installed; None if all are."""
    missing = [tool for tool in (chip.compiler, chip.emulator) if shutil.which(tool) is None]
    return f"needs {' and '.join(missing)}" if missing else None


def compile_for_chip(chip: Chip, source: CSource, folder: Path, *, optimize: str = "-O2") -> None:
    """Compile a network that was exported under the name `model`, and what it needs to run alone.

    Args:
        chip: One of `CHIPS`.
        source: The network.
        folder: For the object files.
        optimize: The compiler's level.

    Raises:
        DataError: If it does not compile.
    """
    for name, text in (("model.c", source.source), ("model.h", source.header)):
        (folder / name).write_text(text)
    counter = [] if chip.counter_at is None else [f"-DCHIP_COUNTER={chip.counter_at:#x}"]
    _run(
        [chip.compiler, *chip.flags, optimize, *counter, "-Wall", "-Wextra", "-Werror", "-ffunction-sections",
         "-fdata-sections", f"-I{_PARTS}", "-I.", "-c", str(_PARTS / "start.c"), str(_PARTS / "main.c"), "model.c"],
        folder, f"{chip.name}: does not compile:",
    )  # fmt: skip


def run_on_chip(
    chip: Chip,
    pixels: NDArray[np.uint8],
    folder: Path,
    *,
    flash_bytes: int | None = None,
    ram_bytes: int | None = None,
    stack_bytes: int = _STACK_BYTES,
) -> ChipRun:
    """Link what `compile_for_chip` left in a folder, and run it.

    Args:
        chip: The same chip.
        pixels: (N, H, W, 3), as the network takes them.
        folder: The same folder.
        flash_bytes: Flash memory of the chip; by default what the emulated machine has.
        ram_bytes: Likewise its RAM.
        stack_bytes: Part of the RAM for the stack.

    Raises:
        DataError: If the program does not fit into the chip's memory, or does not run to its end.
    """
    sizes = {"flash_bytes": flash_bytes or chip.flash_bytes, "ram_bytes": ram_bytes or chip.ram_bytes}
    _link(chip, folder, {**sizes, "stack_bytes": stack_bytes})
    (folder / "pixels.bin").write_bytes(np.ascontiguousarray(pixels).tobytes())
    _run([chip.emulator, *_machine(chip), "-kernel", "program.elf"], folder, f"{chip.name}: the program ended with")
    figures = dict(zip(_FIGURES, np.fromfile(folder / "figures.bin", np.uint32).tolist(), strict=True))
    used = _run([chip.compiler.replace("gcc", "nm"), "program.elf"], folder, f"{chip.name}: no symbols:")
    symbols = {name: int(value, 16) for value, _, name in map(str.split, used.splitlines())}
    return ChipRun(
        logits=np.fromfile(folder / "logits.bin").reshape(len(pixels), -1),
        features=np.fromfile(folder / "features.bin", np.int32).reshape(len(pixels), -1),
        open_instructions=figures["open"] * chip.instructions_per_tick,
        run_instructions=figures["run"] * chip.instructions_per_tick,
        stack_bytes=figures["stack"], arena_touched_bytes=figures["touched"],
        flash_bytes=symbols["chip_flash_used"], ram_bytes=symbols["chip_ram_used"],
    )  # fmt: skip


def _link(chip: Chip, folder: Path, sizes: dict[str, int]) -> None:
    vectors = chip.flash_at if chip.vectors_at is None else chip.vectors_at
    words = {
        "vectors": hex(vectors), "vectors_in": "FLASH" if chip.vectors_at is None else "VECTORS",
        "vectors_beside": 0 if chip.vectors_at is None else "SIZEOF(.vectors)", "flash": hex(chip.flash_at),
        "ram": hex(chip.ram_at), **sizes,
    }  # fmt: skip
    script = (_PARTS / "chip.ld").read_text()
    for word, value in words.items():
        script = script.replace(f"@{word}@", str(value))
    (folder / "chip.ld").write_text(script)
    _run(
        [chip.compiler, *chip.flags, "-nostartfiles", "-Wl,--gc-sections", "-T", "chip.ld", "start.o", "main.o",
         "model.o", "-o", "program.elf"],
        folder, f"{chip.name}: expected a program of {sizes['flash_bytes']} bytes of flash memory and "
        f"{sizes['ram_bytes']} of RAM, got",
    )  # fmt: skip


def _machine(chip: Chip) -> list[str]:
    bios = [] if chip.is_arm else ["-bios", "none"]
    return ["-machine", chip.machine, *bios, "-nographic", "-monitor", "none", "-serial", "none",
            "-semihosting-config", "enable=on,target=native",
            "-icount", "shift=0,align=off,sleep=off"]  # fmt: skip


def _run(command: list[str], folder: Path, failure: str) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise DataError(f"{failure} no result within {_TIMEOUT} seconds") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "overflowed by" in line or "error:" in line]
        raise DataError(f"{failure} {lines[0].strip() if lines else f'exit code {done.returncode}'}")
    return done.stdout
