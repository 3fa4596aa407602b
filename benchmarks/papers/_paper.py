"""What the papers' scripts share: their command line, claims with their verdicts, rounds; and the table of them all.

usage: _paper.py [--all] [--workers N] [--quick]

It writes the table in README.md anew from benchmarks/results/papers; with --all it runs the scripts before, so many at
a time, and stores their results and figures. With --quick they are tried, and nothing is stored.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import common  # noqa: E402
import numpy as np  # noqa: E402

import fedsim_np as fed  # noqa: E402

RESULTS, FIGURES = common.RESULTS / "papers", HERE.parent / "figures" / "papers"
ORDER = (
    "fixed_points",
    "fedprox",
    "convergence_non_iid",
    "power_of_choice",
    "scaffold",
    "fednova",
    "robust_means",
    "q_ffl",
    "ditto",
    "fedavg_table",
)
BEGIN, END = "<!-- the table: written by _paper.py -->", "<!-- its end -->"


def claim(text, paper, ours, holds):
    """Return a claim's row; `holds` says so of each seed or once, or is None where it cannot be checked here."""
    if holds is None:
        verdict = "cannot be checked here"
    else:
        each = np.atleast_1d(holds)
        verdict = "came out" if each.all() else "did not"
        if len(each) > 1 and 0 < each.sum() < len(each):
            verdict += f" everywhere: in {each.sum()} of {len(each)}"
    return {"claim": text, "paper": paper, "ours": ours, "verdict": verdict}


def spread(values, digits=3, unit=""):
    """Return a mean and the range over seeds, as text."""
    values = np.asarray(values, np.float64)
    mean, low, high = (f"{v:.{digits}f}{unit}" for v in (values.mean(), values.min(), values.max()))
    return mean if low == high else f"{mean} ({low} to {high})"


def run(process, cohort, rounds, evaluate=None, every=1, reshuffle=True):
    """Run rounds; return the last state and the evaluations, of the state after every so many rounds."""
    logger, found = fed.program.MemoryLogger(), []

    def measured(state, _):
        found.append(evaluate(state))
        return {"done": 1.0}

    asked = (measured, lambda _: [], every) if evaluate else ()
    state = fed.program.run_training_process(
        process, cohort, rounds, *asked, metrics_managers=[logger], reshuffle=reshuffle
    )
    return state, found


def accuracy_and_loss(model, datasets):
    """Return a function of a state: accuracy and loss over all examples of these datasets."""
    evaluation = fed.learning.build_fed_eval(model, executor="serial")

    def evaluate(state):
        metrics = fed.program.training.evaluate_weights(evaluation, state.global_model_weights, datasets)
        return metrics["sparse_categorical_accuracy"], metrics["loss"]

    return evaluate


def figure(*shape, width=4.2, height=3.6):
    """Return a figure and its panels, (rows, columns)."""
    from matplotlib.figure import Figure

    rows, columns = shape or (1, 1)
    made = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False)


def main(doc, measure, draw):
    """Measure, print, store, draw."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--figure", type=Path, help="where to draw the figure")
    parser.add_argument("--quick", action="store_true", help="few rounds of little data, to see that it runs")
    arguments = parser.parse_args()
    started, of_clock = time.process_time(), time.perf_counter()
    with np.errstate(all="ignore"):
        result = measure(arguments.quick)
    # Of the processor: one process and one thread, so that it is the clock's on a machine that does nothing else.
    result["seconds"] = round(time.process_time() - started)
    result["seconds by the clock"] = round(time.perf_counter() - of_clock)
    common.store(json.loads(json.dumps(result | common.origin(), default=float)), arguments.json)
    made = draw(result)
    if arguments.figure:
        made.savefig(arguments.figure, dpi=110, metadata={"Software": None})


def table():
    """Return the table of all stored results, in Markdown, and which scripts have none."""
    rows = [
        "| paper | claim | the paper's figure | ours | verdict | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in ORDER:
        path = RESULTS / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            for number, one in enumerate(result["claims"]):
                paper = f"[{result['paper']}]({name}.py)" if number == 0 else ""
                seconds = str(result["seconds"]) if number == 0 else ""
                verdict = one["verdict"] if one["verdict"].startswith("came out") else f"**{one['verdict']}**"
                rows.append(f"| {paper} | {one['claim']} | {one['paper']} | {one['ours']} | {verdict} | {seconds} |")
    missing = [f"[{name}.py]({name}.py)" for name in ORDER if not (RESULTS / f"{name}.json").exists()]
    if missing:
        rows += ["", f"**Run with --quick alone so far, so that nothing is known of them:** {', '.join(missing)}."]
    return "\n".join(rows) + "\n"


def run_script(name, quick):
    """Run a paper's script as a process of its own; return its exit status."""
    stored = ("--json", RESULTS / f"{name}.json", "--figure", FIGURES / f"{name}.png")
    command = [sys.executable, HERE / f"{name}.py", *(("--quick",) if quick else stored)]
    started = time.perf_counter()
    # What it prints is stored, too; what goes wrong is said on stderr.
    status = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, check=False).returncode
    print(f"{name}: {time.perf_counter() - started:.0f} s{f', exit status {status}' if status else ''}", flush=True)
    return status


def write_table():
    """Write the table in README.md."""
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{table()}{END}{after}", encoding="utf-8", newline="\n")


def main_of_all():
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="run all scripts")
    parser.add_argument("--workers", type=int, default=2, help="how many at a time")
    parser.add_argument("--quick", action="store_true", help="with --all: few rounds of little data, nothing stored")
    arguments = parser.parse_args()
    statuses, started = [], time.perf_counter()
    if arguments.all:
        with ThreadPoolExecutor(arguments.workers) as pool:
            statuses = list(pool.map(run_script, ORDER, [arguments.quick] * len(ORDER)))
        print(f"all: {time.perf_counter() - started:.0f} s by the clock, {arguments.workers} at a time")
    if not arguments.quick:
        write_table()
    return max(statuses, default=0)


if __name__ == "__main__":
    sys.exit(main_of_all())
