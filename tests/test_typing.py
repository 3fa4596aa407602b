"""What a user's editor, type checker and prompt say of a process."""

import inspect
import os
import pickle
import pydoc
import re
import subprocess
import sys

import pytest
from conftest import random_cohort, sgd, toy_model

import fedsim_np as fed

PROCESSES = {
    "training": lambda: fed.learning.build_weighted_fed_avg(toy_model(), sgd(0.1)),
    "evaluation": lambda: fed.learning.build_fed_eval(toy_model()),
}


@pytest.mark.parametrize("kind", PROCESSES)
def test_the_methods_of_a_process_are_methods(kind):
    process = PROCESSES[kind]()
    assert inspect.ismethod(process.next)
    assert list(inspect.signature(process.next).parameters) == ["state", "data", "iteration"]
    assert inspect.signature(process.next).parameters["iteration"].default == 0
    assert not inspect.signature(process.initialize).parameters
    assert list(inspect.signature(type(process).next).parameters) == ["self", "state", "data", "iteration"]
    text = pydoc.render_doc(process.next, renderer=pydoc.plaintext)
    assert "next(" in text
    data = "data: 'Sequence[ClientBatches] | Sequence[Attendance]'"
    assert all(part in text for part in ("state: 'LearningAlgorithmState'", data, "iteration: 'int' = 0"))
    for part in ("Parameters", "iteration : int", "Which of tf.data's orders", "Returns", "LearningProcessOutput"):
        assert part in text
        assert part in process.next.__doc__
    assert "Return the state before the first round." in pydoc.render_doc(process.initialize)
    with pytest.raises(TypeError, match="unexpected keyword argument 'itertion'"):
        process.next(process.initialize(), random_cohort([3]), itertion=3)
    assert pickle.loads(pickle.dumps(process.next)).type_signature == process.next.type_signature


USER = """
import numpy as np

import fedsim_np as fed
from fedsim_np import trees
from fedsim_np.learning import Client, ClientResult, Cohort, LocalTraining, SGDSteps, StepBatch, Trained
from fedsim_np.learning.client_work import Local
from fedsim_np.learning.models import Stackable
from fedsim_np.trees import Arrays


class Averaging(LocalTraining):
    def initialize(self, weights: Arrays) -> Arrays:
        return trees.map(lambda w: 0 * w, weights)

    def begin(self, client: Client) -> Local:
        return {"weights": client.weights}

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        return {"weights": trees.map(lambda w, g: w - g / 10, local["weights"], gradients)}

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        return ClientResult(trained.update, trained.num_examples)

    def finish_round(self, state: Arrays, cohort: Cohort) -> tuple[Arrays, dict[str, float]]:
        return state, {"clients": len(cohort)}

    def as_sgd(self, state: Arrays) -> SGDSteps:
        return SGDSteps(learning_rate=0.1)


model = fed.learning.models.SoftmaxRegression()
stackable: Stackable = model
mean, server = fed.learning.aggregators.MeanFactory(), fed.learning.optimizers.build_sgdm(1.0)
p = fed.learning.compose_learning_process(model, Averaging(), mean, server, engine="gram")
state = p.initialize()
data = [[{"x": np.zeros((1, 784), np.float32), "y": np.zeros((1, 1), np.int32)}]]
state, metrics = p.next(state, data, iteration=3)
print(p.next(state, data).clients["client_id"], p.next.type_signature.formatted_representation())
"""

WRONG = {
    "p.next(state, data, itertion=3)": 'Unexpected keyword argument "itertion"',
    "p.next(state)": 'Too few arguments|Missing positional argument "data"',
    "p.initialize(3)": "Too many arguments",
    'fed.learning.build_fed_sgd(model, engine="grm")': r"Literal\['grm'\]\"; expected \"Literal\['auto', 'loop'",
    'fed.learning.models.SoftmaxRegression(loss="kers")': r"expected \"Literal\['keras', 'stable', 'tutorial'\]",
    "other: Stackable = server": 'Incompatible types in assignment .*variable has type "Stackable"',
}


# Most of what mypy would read, and nothing that the script uses.
NOT_READ = """[mypy]
[mypy-matplotlib.*,PIL.*,IPython.*,h5py.*]
follow_imports = skip
ignore_missing_imports = True
"""


def test_a_users_script_under_mypy_strict(folder):
    pytest.importorskip("mypy")
    (folder / "mypy.ini").write_text(NOT_READ, encoding="utf-8")
    script = folder / "user.py"
    script.write_text(USER + "\n".join(WRONG) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--cache-dir",
        os.devnull,
        str(script),
    ]
    # Wherever it is installed, also where mypy would not look.
    environment = os.environ | {"MYPYPATH": os.path.dirname(os.path.dirname(fed.__file__))}
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=folder, env=environment)
    errors = [line for line in result.stdout.splitlines() if ": error: " in line]
    first = len(USER.splitlines()) + 1
    found = {int(line.split("user.py:")[1].split(":")[0]) - first: line for line in errors}
    assert sorted(found) == list(range(len(WRONG))), result.stdout
    for place, message in enumerate(WRONG.values()):
        assert re.search(message, found[place]), found[place]
