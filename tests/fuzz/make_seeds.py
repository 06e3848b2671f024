# SPDX-License-Identifier: BSD-3-Clause
"""Turn corpus.txt into three files per seed: make_seeds.py CORPUS DIRECTORY.

One is as it stands there; one is read by loads() or an Unpickler (flag 8), one also goes there and back again (16).
"""

import ast
import pathlib
import sys


def read_corpus(path):
    """Yield (name, bytes) of each line `name: bytes literal`."""
    for line in pathlib.Path(path).read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            name, literal = line.split(": ", 1)
            yield name, ast.literal_eval(literal)


def main():
    corpus, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in read_corpus(corpus):
        for suffix, flags in (("", 0), ("-function", 8), ("-round-trip", 24)):
            (directory / (name + suffix)).write_bytes(bytes([data[0] | flags]) + data[1:])


if __name__ == "__main__":
    main()
