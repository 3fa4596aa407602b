"""Lines of code of the package: of its folders, and on the way from a model to federated averaging.

usage: code_size.py [--before FOLDER] [--json FILE] [--quick]

A line counts if there is code on it: docstrings, comments and blank lines do not. --before names a checkout of another
version, to be counted beside this one.
"""

import argparse
import ast
import io
import json
import tokenize
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
# What a reader reads from a model to federated averaging; a version has some of these.
OF_LEARNING = [
    "client",
    "client_work",
    "cohort",
    "metrics",
    "losses",
    "state",
    "learning_process",
    "process",
    "builders",
    "fed_avg",
]
OF_MODELS = ["models", "models/model", "models/batches", "models/layers", "models/linear"]
OF_PARTS = ["optimizers/optimizer", "optimizers/sgdm", "aggregators/aggregator", "aggregators/mean"]


def code_lines(text):
    """Return the number of lines with code on them."""
    documented = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    silent = {getattr(tokenize, name) for name in ["COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"]}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {n for t in tokens if t.type not in silent for n in range(t.start[0], t.end[0] + 1)}
    return len(lines - documented)


def sizes(checkout):
    """Return the sizes of a version."""
    package = Path(checkout) / "fedsim_np"
    of_file = {
        path.relative_to(package).as_posix(): code_lines(path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
    }
    learning = {name.removeprefix("learning/"): n for name, n in of_file.items() if name.startswith("learning/")}
    return {
        "package": sum(of_file.values()),
        "learning": sum(learning.values()),
        "learning without the MLP": sum(n for name, n in learning.items() if name != "models/mlp.py"),
        "models ... fed_avg": sum(learning.get(f"{name}.py", 0) for name in OF_LEARNING + OF_MODELS + OF_PARTS),
        "files over 300 lines of code": {name: n for name, n in of_file.items() if n > 300},
    }


def main():
    """Count, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a checkout of another version")
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="the same: counting is quick")
    arguments = parser.parse_args()
    result = {"now": sizes(HERE)}
    if arguments.before:
        result["before"] = sizes(arguments.before)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
