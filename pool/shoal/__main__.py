# SPDX-License-Identifier: BSD-3-Clause
"""`python -m shoal`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from shoal import _explain_command, _top
from shoal.info import as_json, as_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shoal", description="A process pool on shared memory.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="what Shoal found on this machine")
    info.add_argument("--json", action="store_true", help="as JSON")
    explain = commands.add_parser(
        "explain",
        help="what a pickle, or an object's pickle, is made of",
        description=_explain_command.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _explain_command.add_arguments(explain)
    top = commands.add_parser(
        "top",
        help="the running pools of this user",
        description=_top.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _top.add_arguments(top)
    chosen = parser.parse_args(arguments)
    if chosen.command == "explain":
        return _explain_command.run(chosen)
    if chosen.command == "top":
        return _top.run(chosen)
    print(as_json() if chosen.json else as_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
