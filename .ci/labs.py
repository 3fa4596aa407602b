"""Run labs' notebooks from top to bottom: each in under 60 s, without an error, all solutions right.

python .ci/labs.py lab_1_drift.ipynb lab_1_drift_solutions.ipynb ...
"""

import concurrent.futures
import sys
import tempfile
import time

import nbclient
import nbformat

MOST_SECONDS = 60
RIGHT, OPEN = ("Right.", "Correcto."), ("Not answered yet.", "Sin responder todavía.")


def verdicts(outputs):
    """Return the first words of what the checks said."""
    shown = [output.get("data", {}).get("text/markdown", "") for output in outputs]
    return [text.split("**")[1].partition(": ")[2] for text in shown if text.startswith("**")]


def run(path):
    """Run a notebook; return what is to be said of it, and whether it is good."""
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=MOST_SECONDS, kernel_name="python3", resources=resources).execute()
    seconds = time.perf_counter() - start
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found, wanted = verdicts(outputs), RIGHT if path.endswith("_solutions.ipynb") else OPEN
    warned = [line for output in outputs if output.get("name") == "stderr" for line in output.text.splitlines()]
    warned = [line for line in warned if not line.startswith("findfont: ")]  # of the machine's fonts
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    wrong = [words for words in found if words not in wanted]
    is_good = bool(found and pictures) and not wrong and not warned and seconds < MOST_SECONDS
    said = f"{path}: {seconds:.1f} s, {len(found)} checks, {pictures} pictures"
    return f"ok: {said}" if is_good else "\n".join([f"FAILED: {said}", *wrong, *warned]), is_good


def main(paths):
    """Run all of them, two at a time; return the exit status."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        status = 0
        for said, is_good in pool.map(run, paths):
            print(said, flush=True)
            status |= not is_good
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
