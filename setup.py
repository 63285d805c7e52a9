"""Builds the native engine as a plain shared library inside the package; everything else is in pyproject.toml.

The library is optional: where no C compiler works, the installation goes on without it. The engine's sources go into
the package as well, for `squeezenet export --to c`; an editable installation finds them in the checkout.
"""

import re
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
# Files that run once per file or per lesson; `kernels_small` is for chips and here only for its tests.
COLD = {
    "kernels_small", "sqz_abi", "sqz_encode", "sqz_hash", "sqz_model", "sqz_novelty", "sqz_parse", "sqz_plan",
    "sqz_schedule", "sqz_teach",
}  # fmt: skip
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
        """Optimise for size where a call takes no time that counts; it saves 30 kB of the wheel."""
        compile_one = self.compiler._compile

        def compile_with_flags(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = [f"-O{2 if Path(src).stem in COLD else 3}" if flag == "-O3" else flag for flag in extra_postargs]
            compile_one(obj, src, ext, cc_args, flags, pp_opts)

        self.compiler._compile = compile_with_flags

    def get_export_symbols(self, ext):  # noqa: D102
        return ext.export_symbols  # not also an initialiser for Python, which the library does not have


class PackSources(build_py):
    """Puts the portable engine's sources, without comments, into one file where the exporter of C finds them."""

    def run(self):  # noqa: D102
        super().run()
        if not self.editable_mode:
            parts = (f"//// {source.name}\n{_without_comments(source.read_text())}" for source in _exported_sources())
            self._packed().write_text("".join(parts))

    def get_outputs(self, include_bytecode=True):  # noqa: D102
        return [*super().get_outputs(include_bytecode), str(self._packed())]

    def _packed(self):
        return Path(self.build_lib) / "squeezenet/exports/csrc.txt"


def _without_comments(code):
    """Leave comments out, and the lines that they stood on alone; it saves 20 kB of the wheel."""
    return re.sub(r"\n\s*\n", "\n", re.sub(r"[ \t]*/\*.*?\*/", "", code, flags=re.DOTALL))


def _exported_sources():
    return [
        path
        for path in sorted((ROOT / "csrc").glob("*.[ch]"))
        if path.stem not in NOT_EXPORTED
        and (not path.name.startswith("kernels_") or path.stem in ("kernels_rows", "kernels_small"))
    ]


README = (ROOT / "README.md").read_text(encoding="utf-8")

setup(
    # What a package index shows: the README up to what only a checkout is good for.
    long_description=README.partition("## Set up for development")[0],
    long_description_content_type="text/markdown",
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
    cmdclass={"build_ext": BuildLibrary, "build_py": PackSources},
    # No Python in the library, hence one wheel for all versions from this one on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
