"""A round in every engine, over a grid of shapes, and how near "auto" is to the fastest.

usage: bench_shapes.py [--repeats N] [--json FILE] [--quick] [--only WORD] [--fit FILE ...]

Softmax regression by SGD on clients of n rows, d features and c classes, in batches of 20, in one thread. "ragged"
clients have from n/4 to 2n rows. "warm" is a round whose clients and orders have been seen before, "new" one whose
orders are new, as when `iteration` is passed, and "first" one of a process that has seen nothing. What would need more
than a budget of arithmetic or memory is left out, for the loop as well. Engines take turns; the figures are the fastest
of their turns, since what is compared takes milliseconds on a machine that others use too. --fit takes stored results
and prints the numbers of `learning/engines/costs.py` with which the choices are best, those of "matrices" aside, whose
rounds are few. `results/shapes-intel.json` is of another machine.
"""

import argparse
import itertools
import json
import re
import time
from pathlib import Path

import common
import numpy as np

import fedsim_np as fed
from fedsim_np.learning.engines import costs

ENGINES = ("loop", "cohort", "gram", "presorted", "auto")
GRID = {"n": (1, 20, 100, 1000, 10000), "d": (5, 60, 784, 10000), "c": (2, 10, 62), "epochs": (1, 5, 20)}
QUICK = {"n": (20,), "d": (5, 60), "c": (10,), "epochs": (1, 2)}
CLIENTS, BATCH = 4, 20
MOST_NUMBERS, MOST_WORK = 1e7, 1e8  # of a cohort's x; multiplications of a round


def sizes_of(n, ragged, k):
    """Return the clients' numbers of rows."""
    return np.geomspace(max(1, n // 4), 2 * n, k).astype(int) if ragged else np.full(k, n)


def cohort_of(n, d, c, epochs, ragged, k):
    """Return the clients' datasets."""
    rng, sizes = np.random.default_rng(0), sizes_of(n, ragged, k)
    arrays = [(rng.normal(0, 1, (m, d)).astype(np.float32), rng.integers(0, c, (m, 1), np.int32)) for m in sizes]
    datasets = [fed.datasets.Dataset.from_arrays({"x": x, "y": y}) for x, y in arrays]
    return [dataset.repeat(epochs).shuffle(200, seed=1).batch(BATCH) for dataset in datasets]


def times_of(cohort, d, c, engines, repeats):
    """Return each engine's times of rounds in ms, by what has been seen before; the engines take turns."""
    model = fed.learning.models.SoftmaxRegression(num_features=d, num_classes=c)
    sgd = fed.learning.optimizers.build_sgdm(0.01)
    times = {engine: {"first": [], "warm": [], "new": []} for engine in engines}
    for turn in range(repeats):
        processes = {
            engine: fed.learning.build_weighted_fed_avg(model, sgd, engine=engine, executor="serial")
            for engine in engines
        }
        # A plan is kept once a chunk has come twice.
        for what, iteration in (("first", 0), (None, 0), ("warm", 0), ("new", turn + 1)):
            for engine, process in processes.items():
                state = process.initialize()
                started = time.perf_counter()
                process.next(state, cohort, iteration=iteration)
                if what:
                    times[engine][what].append((time.perf_counter() - started) * 1e3)
    return times


def fit(paths, tries=4000):
    """Move the costs one at a time, from where they are, wherever the choices on stored grids get better; print them.

    A choice is worth what the fastest way takes, over what the chosen one takes: in rounds with new orders, in warm
    ones, and in first ones; below 0.9 it counts more.
    """
    shapes_of_all = []
    for path in paths:
        for name, times in json.loads(Path(path).read_text(encoding="utf-8"))["shapes"].items():
            n, d, c, epochs = map(int, re.findall(r"=(\d+)", name))
            rows = sizes_of(n, name.endswith("ragged"), CLIENTS).astype(float)
            visits = rows * epochs
            shape = costs.Shapes(rows, visits, np.ceil(visits / BATCH), min(BATCH, int(visits.max())), d, c)
            most = max(2 * rows.sum() * d, 2**24)
            allowed = [way for way, taken in costs.memory(shape).items() if taken <= most and way in times]
            if allowed:
                shapes_of_all.append((costs.counts(shape), allowed, times))
    found = {way: dict(numbers) for way, numbers in costs.OF_ONE.items()}

    def judged():
        loss, under = 0.0, dict.fromkeys(("new", "warm", "first"), 0)
        for counts, allowed, times in shapes_of_all:
            chosen = min(allowed, key=lambda way, counts=counts: sum(found[way][c] * n for c, n in counts[way].items()))
            for what, weight in (("new", 2.0), ("warm", 1.0), ("first", 0.5)):
                ratio = min(times[way][what] for way in (*allowed, "loop")) / times[chosen][what]
                loss += weight * (max(0.0, 0.97 - ratio) + 0.15 * (ratio < 0.9))
                under[what] += ratio < 0.9
        return loss, under

    rng, best = np.random.default_rng(0), judged()[0]
    print(len(shapes_of_all), "shapes; under 0.9 now:", judged()[1])
    names = [(way, count) for way in found for count in found[way] if count != "matrices"]
    for _ in range(tries):
        way, count = names[rng.integers(len(names))]
        before = found[way][count]
        found[way][count] *= np.exp(rng.normal(0, 0.25))
        loss = judged()[0]
        if loss < best - 1e-9:
            best = loss
        else:
            found[way][count] = before
    print("then:", judged()[1])
    for way, numbers in found.items():
        print(way, {count: float(f"{value:.3g}") for count, value in numbers.items()})


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="few shapes and turns, to see that it runs")
    parser.add_argument("--only", default="", help="the shapes with this text in their name, such as 'd=60 '")
    parser.add_argument("--fit", nargs="+", metavar="FILE", help="measure nothing: fit the costs to stored results")
    arguments = parser.parse_args()
    if arguments.fit:
        fit(arguments.fit)
        return
    grid, repeats = (QUICK, 2) if arguments.quick else (GRID, arguments.repeats)
    shapes, k = {}, CLIENTS
    for (n, d, c, epochs), ragged in itertools.product(itertools.product(*grid.values()), (False, True)):
        name = f"n={n} d={d} c={c} epochs={epochs} {'ragged' if ragged else 'even'}"
        numbers = k * n * d
        if numbers > MOST_NUMBERS or 4 * numbers * c * epochs > MOST_WORK or arguments.only not in name + " ":
            continue
        cohort = cohort_of(n, d, c, epochs, ragged, k)
        gram_numbers = sum(dataset.num_own_examples**2 for dataset in cohort)
        with_gram = gram_numbers * d < MOST_WORK and gram_numbers < MOST_NUMBERS
        engines = [engine for engine in ENGINES if engine != "gram" or with_gram]
        times = times_of(cohort, d, c, engines, 3 if k * n * epochs > 2e4 else repeats)
        found = {
            engine: {what: round(min(values), 3) for what, values in of_engine.items()}
            for engine, of_engine in times.items()
        }
        shapes[name] = found
        best = {what: min(of_engine[what] for of_engine in found.values()) for what in found["loop"]}
        share = {what: round(best[what] / found["auto"][what], 2) for what in best}
        print(name, {engine: of_engine["new"] for engine, of_engine in found.items()}, "best/auto", share, flush=True)
    verdict = {}
    for what in ("first", "warm", "new"):
        shares = [min(f[what] for f in found.values()) / found["auto"][what] for found in shapes.values()]
        against_loop = [found["loop"][what] / found["auto"][what] for found in shapes.values()]
        verdict[what] = {
            "shapes": len(shares),
            "best/auto, lowest": round(min(shares), 2),
            "best/auto under 0.9": sum(share < 0.9 for share in shares),
            "loop/auto, lowest": round(min(against_loop), 2),
            "loop/auto under 1": sum(ratio < 1 for ratio in against_loop),
        }
    what = "fastest ms of a round of 4 clients, one thread; how near 'auto' is to the fastest engine, and to the loop"
    result = {"what": what, "repeats": repeats, "verdict": verdict, "shapes": shapes}
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
