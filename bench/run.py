# SPDX-License-Identifier: BSD-3-Clause
"""Ours against the others, in turns. `python bench/run.py --list` shows the rows; docs/benchmarks.md explains them."""

import argparse
import pathlib
import sys

import as_pyperf
import frame
import machine
import report
import rows
import side

QUICK_ROUNDS = 2


def parse_arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a row, or the first part of its name; default: all")
    parser.add_argument("--group", help="only rows of this group: pickle, pool or native")
    parser.add_argument("--list", action="store_true", help="show the names of the rows")
    parser.add_argument("--rounds", type=int, help="of each side; default: as each row says")
    parser.add_argument("--quick", action="store_true", help="two single calls: shows that it works, not how fast")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every round and all figures to FILE")
    parser.add_argument(
        "--pyperf",
        type=pathlib.Path,
        metavar="DIR",
        help="write DIR/ours.json and DIR/theirs.json, as pyperf reads them",
    )
    parser.add_argument(
        "--patience", type=float, default=20.0, metavar="SECONDS", help="to wait for a quiet machine before each row"
    )
    options = parser.parse_args(words)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def measure(row: frame.Row | frame.Program, options: argparse.Namespace) -> list[frame.Result]:
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else row.rounds)
    if not options.quick:
        machine.wait_until_quiet(report.NOISY_SHARE, options.patience)
    if isinstance(row, frame.Program):
        return frame.measure_program(row, rounds)
    open_side = side.fork_side if options.quick else side.open_side
    return [frame.measure(row, rounds, row.round_seconds, open_side)]


def main(words: list[str] | None = None) -> int:
    options = parse_arguments(words)
    if options.quick:
        frame.be_quick()
        import shoal  # noqa: F401  # for all sides, which are forks of this process
    registry = rows.all_rows()
    chosen = registry.choose(options.names, options.group)
    if options.list:
        for row in chosen:
            print(f"{row.name:<32}  {getattr(row, 'peer', '')}".rstrip())
        return 0
    print(report.heading(), flush=True)
    results = []
    for row in chosen:
        for result in measure(row, options):
            results.append(result)
            print(report.line(result), flush=True)
    print(report.LEGEND)
    print(*report.means(results, registry.family_goals), *report.verdict(results), sep="\n")
    if options.json:
        report.write_json(options.json, results)
    if options.pyperf:
        as_pyperf.write(options.pyperf, results)
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
