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
    report = commands.add_parser("report", help="a page about a trace that a pool has written")
    report.add_argument("trace", metavar="TRACE", help="the file that pool.trace(...) wrote")
    report.add_argument("page", metavar="PAGE", nargs="?", help="the page (TRACE.html)")
    chosen = parser.parse_args(arguments)
    if chosen.command == "explain":
        return _explain_command.run(chosen)
    if chosen.command == "top":
        return _top.run(chosen)
    if chosen.command == "report":
        return _report(chosen.trace, chosen.page or f"{chosen.trace.removesuffix('.json')}.html")
    print(as_json() if chosen.json else as_text())
    return 0


def _report(trace: str, page: str) -> int:
    from shoal._report import write_of_trace

    try:
        write_of_trace(page, trace)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"python -m shoal report: {trace}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
