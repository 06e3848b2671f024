# SPDX-License-Identifier: BSD-3-Clause
"""What was measured, as pyperf keeps it: for `python -m pyperf compare_to theirs.json ours.json`, `stats`, `hist`.

pyperf itself measures one side after the other, hours apart for all it knows, and compares files. Here the two take
turns, so the values come from our frame; each process of a side is one pyperf.Run, each round a value.
"""

import pathlib

import frame


def write(directory: pathlib.Path, results: list[frame.Result]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    import pyperf

    about = pyperf.Run([1.0]).get_metadata()  # of this machine and interpreter
    for side in (frame.OURS, frame.THEIRS):
        benchmarks = [
            pyperf.Benchmark(runs(pyperf, about, result, side))
            for result in results
            if not (result.skipped or result.failed) and side in result.samples
        ]
        if benchmarks:
            pyperf.BenchmarkSuite(benchmarks).dump(str(directory / f"{side}.json"), replace=True)


def runs(pyperf, about: dict, result: frame.Result, side: str) -> list:
    metadata = about | {"name": result.row.name, "unit": "second", "compared_with": result.row.peer or "nothing"}
    samples = result.samples[side]
    made = []
    for process in sorted({sample.process for sample in samples}):
        of_process = [sample for sample in samples if sample.process == process]
        loops = {"loops": max(1, of_process[0].operations // result.row.operations)}
        if result.row.operations > 1:
            loops["inner_loops"] = result.row.operations
        values = [sample.seconds for sample in of_process]
        made.append(pyperf.Run(values, metadata=metadata | loops, collect_metadata=False))
    return made
