"""Run labs' notebooks from top to bottom: each in under 60 s, without an error, all solutions right.

python .ci/labs.py lab_1_drift.ipynb lab_1_drift_solutions.ipynb ...
"""

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


def main(paths):
    """Run all of them; return the exit status."""
    failed = False
    for path in paths:
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            resources = {"metadata": {"path": folder}}
            nbclient.NotebookClient(
                notebook, timeout=MOST_SECONDS, kernel_name="python3", resources=resources
            ).execute()
        seconds = time.perf_counter() - start
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        found, wanted = verdicts(outputs), RIGHT if path.endswith("_solutions.ipynb") else OPEN
        warned = [line for output in outputs if output.get("name") == "stderr" for line in output.text.splitlines()]
        warned = [line for line in warned if not line.startswith("findfont: ")]  # of the machine's fonts
        pictures = sum("image/png" in output.get("data", {}) for output in outputs)
        is_good = (
            found and all(words in wanted for words in found) and seconds < MOST_SECONDS and not warned and pictures
        )
        print(f"{'ok' if is_good else 'FAILED'}: {path}: {seconds:.1f} s, {len(found)} checks, {pictures} pictures")
        if not is_good:
            print(found, *warned)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
