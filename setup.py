"""Builds the native engine as a plain shared library inside the package; everything else is in pyproject.toml.

The library is optional: where no C compiler works, the installation goes on without it.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = {
    "unix": ["-O3", "-std=c99", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"],
    "msvc": ["/O2", "/fp:precise"],
}
LINK_FLAGS = {"unix": ["-s", "-pthread"]}
ROOT = Path(__file__).parent


class BuildLibrary(build_ext):
    """Picks flags for the compiler at hand."""

    def build_extension(self, ext):  # noqa: D102
        kind = self.compiler.compiler_type
        ext.extra_compile_args = FLAGS.get(kind, FLAGS["unix"] if kind == "mingw32" else [])
        ext.extra_link_args = LINK_FLAGS.get(kind, [])
        super().build_extension(ext)

    def get_export_symbols(self, ext):  # noqa: D102
        return ext.export_symbols  # not also an initialiser for Python, which the library does not have


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
    cmdclass={"build_ext": BuildLibrary},
    # No Python in the library, hence one wheel for all versions from this one on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
