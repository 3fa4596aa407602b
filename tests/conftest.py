"""What the tests share: toy clients, a folder with an awkward name, the stored figures, pages that are run."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import signal
import threading
import warnings
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import fedsim_np as fed
from fedsim_np import cli
from fedsim_np.cli import main

# Where the tests run in the background, SIGINT is ignored, by them and by every process that they start.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared: time is not tested.
hypothesis.settings.register_profile("no deadline", deadline=None, max_examples=50)
hypothesis.settings.load_profile("no deadline")

collect_ignore_glob = ["goldens/*"]  # scripts that need TensorFlow

GOLDENS = Path(__file__).parent / "goldens"

# Modules that make something once that takes seconds: each goes to one worker of pytest-xdist as a whole.
MADE_ONCE = {"test_cluster.py", "test_local_training.py", "test_report.py", "test_sweep.py"}


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give out such modules first, and then test by test, as `--dist load` does without knowing of modules."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return file if file.rpartition("/")[2] in MADE_ONCE else nodeid

    return Scheduling(config, log)


@pytest.fixture
def folder(tmp_path):
    """An empty folder whose path has spaces and accents."""
    path = tmp_path / "données d'été ß"
    path.mkdir()
    return path


@pytest.fixture
def undrawn(monkeypatch):
    """Pages of runs without pictures, where a test is about their texts."""
    monkeypatch.setattr("fedsim_np.report.run_pictures.stored_pictures", lambda *_: [])


@pytest.fixture(scope="session")
def tff_figures():
    return json.loads((GOLDENS / "tff_figures.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def shared():
    """The folder that FEDSIM_NP_ACCEPTANCE names; without it the test is skipped."""
    if "FEDSIM_NP_ACCEPTANCE" not in os.environ:
        pytest.skip("FEDSIM_NP_ACCEPTANCE is not set")
    return Path(os.environ["FEDSIM_NP_ACCEPTANCE"])


PAGES = Path(fed.__file__).parent / "docs"
KINDS = {"bash", "jupyter", "powershell", "python", "text", "toml"}
_BLOCK = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def blocks_of(page):
    """Return a page's blocks of code: kind, what else stands in the first line or None, content, the line's number."""
    text = page.read_text(encoding="utf-8")
    blocks = [(*block.groups(), text.count("\n", 0, block.start(3))) for block in _BLOCK.finditer(text)]
    assert len(blocks) == len(re.findall("^```", text, flags=re.MULTILINE)) / 2
    assert {kind for kind, *_ in blocks} <= KINDS
    return blocks


def run_command(line, parsed=False):
    """Run a line of a shell, or have it parsed alone; what is no command of ours must be one that others know."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["fedsim-np"] and not parsed:
        assert main(words[1:]) == 0, line
    elif words[:1] == ["fedsim-np"]:
        cli._parser().parse_args(words[1:])
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None, line
    elif words[:1] == ["python"]:
        assert (Path(__file__).parents[1] / words[1]).is_file(), line
    else:
        assert not words or words[0] in ("cd", "git", "pip", "pre-commit", "python3"), line


def run_page(page, packages=(), smaller=()):
    """Run a page's blocks in order, Python's in one namespace, which is returned; a block of text is what one prints.

    ```` ```python needs mlflow ```` is left out, with its text, unless that package is among `packages`;
    ```` ```toml sweep.toml ```` is a file, and written; ```` ```bash parsed ```` is not run. `smaller` are pairs of
    texts: what the page says, and what is run instead.
    """
    names, out, is_run = {}, None, True
    assert all(any(large in block[2] for block in blocks_of(page)) for large, _ in smaller)
    for kind, mark, content, line in blocks_of(page):
        for large, small in smaller:
            content = content.replace(large, small)  # noqa: PLW2901
        needs = mark.removeprefix("needs ") if mark and mark.startswith("needs ") else None
        if kind == "text":
            assert out == content or out is None or not is_run, f"{page.name}, line {line}: {out}"
            out = None
        elif mark is not None and "." in mark:
            Path(mark).write_text(content, encoding="utf-8")
        elif kind == "bash":
            for command in content.replace("\\\n", " ").splitlines():
                run_command(command, parsed=mark == "parsed")
            out = None
        elif kind == "python":
            is_run, shown = needs is None or needs in packages, io.StringIO()
            with warnings.catch_warnings(), contextlib.redirect_stdout(shown):
                if needs is not None:  # whose warnings are its own
                    warnings.simplefilter("ignore")
                if is_run:  # errors name the page's own line
                    exec(compile("\n" * line + content, page.name, "exec"), names)
            out = shown.getvalue()
            print(out, end="")
    return names


def digits(sizes, seed=0):
    """Client data in the EMNIST schema with that many examples: noise with a bright row per label."""
    rng = np.random.RandomState(seed)
    clients = {}
    for i, n in enumerate(sizes):
        label = rng.randint(0, 10, n).astype(np.int32)
        pixels = (rng.randint(0, 200, (n, 28, 28)) / 255).astype(np.float32)
        pixels[np.arange(n), 2 * label] = 1.0
        clients[f"f{i:04d}_{i % 50:02d}"] = {"label": label, "pixels": pixels}
    return fed.datasets.InMemoryClientData(clients)


@pytest.fixture
def digit_files(folder):
    """Paths of a train and a test file with 12 clients each."""
    paths = folder / "train.h5", folder / "test.h5"
    for seed, path in enumerate(paths):
        fed.datasets.write_hdf5(path, digits([5 + i for i in range(12)], seed))
    return paths


TOY_X = np.arange(20, dtype=np.float32).reshape(5, 4) / 10
TOY_Y = np.array([[0], [1], [2], [1], [0]], np.int32)


def toy_batches(x=TOY_X, y=TOY_Y, size=2):
    """Five examples, 4 features, 3 classes, in batches."""
    return [{"x": x[i : i + size], "y": y[i : i + size]} for i in range(0, len(y), size)]


def toy_model(loss="keras"):
    return fed.learning.models.SoftmaxRegression(num_features=4, num_classes=3, loss=loss)


def sgd(rate, momentum=None):
    return fed.learning.optimizers.build_sgdm(rate, momentum)


def random_cohort(sizes, seed=0, batch=None):
    """Toy clients of those sizes as datasets, in one full batch each unless a batch size is given."""
    rng = np.random.RandomState(seed)
    cohort = []
    for i, n in enumerate(sizes):
        arrays = {"x": rng.randn(n, 4).astype(np.float32), "y": rng.randint(0, 3, (n, 1)).astype(np.int32)}
        cohort.append(fed.datasets.Dataset.from_arrays(arrays, client_id=f"c{i}").batch(batch or max(1, n)))
    return cohort
