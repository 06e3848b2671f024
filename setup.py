# SPDX-License-Identifier: BSD-3-Clause
"""pip's way in. Compiling is the Autotools build's work: it alone knows the sources."""

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

TOP = pathlib.Path(__file__).resolve().parent


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
        switches = [f"--with-python={sys.executable}", "--without-cunit", "--disable-static"]
        subprocess.run([str(TOP / "configure"), "-q", *switches], cwd=build, check=True)
        subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "pool/_ext.la"], cwd=build, check=True)
        target = pathlib.Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build / "pool/.libs" / f"_ext{sysconfig.get_config_var('EXT_SUFFIX')}", target)


class SdistWithConfigure(sdist):
    """A source distribution builds without Autotools, as a release tarball does."""

    def run(self):
        autoreconf()
        super().run()


setup(
    version=version(),
    ext_modules=[Extension("shoal._ext", sources=[])],
    cmdclass={"build_ext": AutotoolsBuild, "sdist": SdistWithConfigure},
)
