# SPDX-License-Identifier: BSD-3-Clause
"""Defined in one script, used in another that cannot import it, and in the first one again: for the case files."""

import textwrap


def carry(fresh_python, directory, define, check, first_protocol=0):
    """Both loads use plain `pickle.loads`; the second script has never imported Shoal itself."""
    file = directory / "pickle"
    body = textwrap.indent(textwrap.dedent(check).strip(), "    ")
    use = f"for stream in streams:\n    it = pickle.loads(stream)\n{body}\n    it = pickle.loads(stream)\n{body}\n"
    dump = f"streams = [shoal.dumps(it, protocol) for protocol in range({first_protocol}, 6)]\n"
    keep = "pickle.dump(streams, open(sys.argv[1], 'wb'))\n"
    fresh_python(textwrap.dedent(define) + "\nimport pickle, shoal, sys\n" + dump + keep + use, file)
    fresh_python("import pickle, sys\nstreams = pickle.load(open(sys.argv[1], 'rb'))\n" + use, file)
