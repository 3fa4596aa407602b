"""What a command says of a run besides its figures."""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path

from fedsim_np.program.training import EVALUATION_METRICS_PREFIX
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.stored import read_table
from fedsim_np.runs.updates import NONE

_NON_FINITE = "finalizer/update_non_finite"
_ABSENT, _THERE = "participation/absent", ("participation/full", "participation/partial")
_EVALUATED, _TRAINED = f"{EVALUATION_METRICS_PREFIX}loss", "client_work/train/loss"


def remark_on_loss(log: Path, experiment: Experiment) -> None:
    """Say of a run whose loss ended no lower than it began what may help.

    Parameters
    ----------
    log : Path
        Of the run's ``metrics.csv``: a run that was resumed began in another process.
    experiment : Experiment
    """
    losses: list[float] = []
    rows: list[dict[str, str]] = []
    with contextlib.suppress(OSError, ValueError):  # what is wrong with the file is said elsewhere
        rows = read_table(log)[1]
        losses = [float(text) for row in rows[:1] + rows[1:][-1:] if (text := row.get(_EVALUATED) or row.get(_TRAINED))]
    if rows and (rows[-1].get(_ABSENT) or "0") != "0" and all(rows[-1].get(there) == "0" for there in _THERE):
        print("note: nobody took part in the last round", file=sys.stderr)
        return
    if len(losses) < 2 or losses[1] < losses[0]:
        return
    config = experiment.config
    rates = [f"--server-lr (here {config.server_lr:g})"]
    if not config.imported().takes_no_steps:
        rates.insert(0, f"--client-lr (here {config.client_lr:g})")
    help_with = [f"a smaller {' or '.join(rates)}"]
    if config.noise_multiplier:
        help_with.append(f"more --clients (here {config.clients}), which have the same noise")
    if config.attack != NONE:
        help_with.append(f"an --aggregator that bears attackers (here {config.aggregator})")
    if not config.invert and experiment.is_mostly_paper():
        help_with.append("--invert, since most pixels are near 1, which is paper in EMNIST")
    ended = f"ended at {losses[1]:.4f}" if math.isfinite(losses[1]) else "ended as no finite number"
    if (rows[-1].get(_NON_FINITE) or "0") != "0":
        ended += ", the last round without a finite update"
    print(
        f"note: the loss began at {losses[0]:.4f} and {ended}. What may help: {'; '.join(help_with)}", file=sys.stderr
    )
