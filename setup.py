"""Builds the native engine as a plain shared library inside the package; everything else is in pyproject.toml.

The library is optional: where no C compiler works, the installation goes on without it. The engine's sources go into
the package as well, for `squeezenet export --to c`; an editable installation finds them in the checkout.
"""

import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

FLAGS = {
    "unix": [
        "-O3",
        "-std=c99",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fvisibility=hidden",
        "-fno-asynchronous-unwind-tables",
    ],
    "msvc": ["/O2", "/fp:precise"],
}
LINK_FLAGS = {"unix": ["-s", "-pthread"]}
# Files that run once per file or per lesson; and those of them that are as fast when optimised for size, such as the
# encoder. `kernels_small` is for chips and here only for its tests.
LEVELS = dict.fromkeys(("sqz_hash", "sqz_model", "sqz_novelty", "sqz_teach"), "-O2")
LEVELS |= dict.fromkeys(("kernels_small", "sqz_abi", "sqz_encode", "sqz_parse", "sqz_plan", "sqz_schedule"), "-Os")
# What exported C is not made of.
NOT_EXPORTED = {"sqz_abi", "sqz_batch", "sqz_encode", "sqz_novelty", "sqz_teach", "sqz_threads"}
ROOT = Path(__file__).parent


class BuildLibrary(build_ext):
    """Picks flags for the compiler at hand."""

    def build_extension(self, ext):  # noqa: D102
        kind = self.compiler.compiler_type
        ext.extra_compile_args = FLAGS.get(kind, FLAGS["unix"] if kind == "mingw32" else [])
        ext.extra_link_args = LINK_FLAGS.get(kind, [])
        if kind == "unix":
            self._optimise_cold_files_for_size()
        super().build_extension(ext)

    def _optimise_cold_files_for_size(self):
        """Optimise less, or for size, where a call takes no time that counts; it saves 30 kB of the wheel."""
        compile_one = self.compiler._compile

        def compile_with_flags(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = [LEVELS.get(Path(src).stem, flag) if flag == "-O3" else flag for flag in extra_postargs]
            compile_one(obj, src, ext, cc_args, flags, pp_opts)

        self.compiler._compile = compile_with_flags

    def get_export_symbols(self, ext):  # noqa: D102
        return ext.export_symbols  # not also an initialiser for Python, which the library does not have


class CopySources(build_py):
    """Puts the portable engine's sources where the exporter of C finds them."""

    def run(self):  # noqa: D102
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / "squeezenet/exports/csrc"
            folder.mkdir(parents=True, exist_ok=True)
            for source in _exported_sources():
                shutil.copy(source, folder)

    def get_outputs(self, include_bytecode=True):  # noqa: D102
        folder = Path(self.build_lib) / "squeezenet/exports/csrc"
        return super().get_outputs(include_bytecode) + [str(folder / source.name) for source in _exported_sources()]


def _exported_sources():
    return [
        path
        for path in sorted((ROOT / "csrc").glob("*.[ch]"))
        if path.stem not in NOT_EXPORTED
        and (not path.name.startswith("kernels_") or path.stem in ("kernels_rows", "kernels_small"))
    ]


setup(
    ext_modules=[
        Extension(
            "squeezenet._squeezenet",
            sources=sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("*.c")),
            depends=sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("*.h")),
            define_macros=[("SQZ_BUILD_SHARED", "1")],
            py_limited_api=True,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "build_py": CopySources},
    # No Python in the library, hence one wheel for all versions from this one on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
