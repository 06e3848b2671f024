# SPDX-License-Identifier: BSD-3-Clause
"""pip's way in. Compiling is the Autotools build's work: it alone knows the sources.

A wheel is the same, byte for byte, wherever it is built with the same tools: SOURCE_DATE_EPOCH sets its dates, paths do
not get into it. It needs nothing but libc, since liburing is inside, and says in its name which glibc it needs.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

TOP = pathlib.Path(__file__).resolve().parent
# What every manylinux system has of what we link with (PEP 600).
SYSTEM_LIBRARIES = re.compile(r"lib(c|m|pthread|rt|dl)\.so\.\d|ld-linux[\w-]*\.so\.\d")


def version():
    header = (TOP / "include/shoal/shoal.h").read_text()
    return re.search(r'^#define SHOAL_VERSION "(.*)"$', header, re.MULTILINE)[1]


def autoreconf():
    if not (TOP / "Makefile.in").exists():
        subprocess.run(["autoreconf", "-i"], cwd=TOP, check=True)


class AutotoolsBuild(build_ext):
    """Configure in a directory of its own, `make pool/_ext.la`, and hand over what libtool made."""

    def build_extension(self, extension):
        autoreconf()
        build = pathlib.Path(self.build_temp, "autotools").resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = os.path.relpath(TOP / "configure", build)  # an absolute one would get into the objects
        switches = [f"--with-python={sys.executable}", "--without-cunit", "--disable-static"]
        flags = f"{os.environ.get('CFLAGS', '-O2')} -ffile-prefix-map={TOP}=."
        subprocess.run(
            [configure, "-q", *switches, "--enable-static-liburing=auto", f"CFLAGS={flags}"], cwd=build, check=True
        )
        subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "pool/_ext.la"], cwd=build, check=True)
        target = pathlib.Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build / "pool/.libs" / f"_ext{sysconfig.get_config_var('EXT_SUFFIX')}", target)


class ManylinuxWheel(bdist_wheel):
    """A wheel that needs nothing but glibc is named by the glibc it needs; any other is for this machine."""

    def get_tag(self):
        python, abi, platform = super().get_tag()
        modules = list(pathlib.Path(self.bdist_dir).glob("shoal/_ext.*.so"))  # none yet when an editable one is named
        if platform.startswith("linux_") and modules:
            said = subprocess.run(["objdump", "-p", modules[0]], capture_output=True, text=True, check=True).stdout
            if all(SYSTEM_LIBRARIES.fullmatch(name) for name in re.findall(r"NEEDED +(\S+)", said)):
                minors = [int(minor) for minor in re.findall(r"\bGLIBC_2\.(\d+)", said)]
                if minors:
                    platform = platform.replace("linux_", f"manylinux_2_{max(17, *minors)}_", 1)
        return python, abi, platform


class SdistWithConfigure(sdist):
    """A source distribution builds without Autotools, as a release tarball does."""

    def run(self):
        autoreconf()
        super().run()


if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit("Shoal does not support free-threaded builds of Python: install it for one with the GIL.")
setup(
    version=version(),
    ext_modules=[Extension("shoal._ext", sources=[])],
    cmdclass={"bdist_wheel": ManylinuxWheel, "build_ext": AutotoolsBuild, "sdist": SdistWithConfigure},
)
