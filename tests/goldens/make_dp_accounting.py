"""Epsilons by Google's dp-accounting, which the tests hold `fedsim_np.privacy` to.

usage: python tests/goldens/make_dp_accounting.py

To be run once with dp-accounting==0.4.3 and once with 0.6.0: each adds its figures (a minute). At fractional orders of
the Poisson-sampled Gaussian 0.6.0 takes all binomials of its series for positive: its epsilons are too large there.
"""

import itertools
import json
from importlib import metadata
from pathlib import Path

import dp_accounting as dp
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

POPULATION, DELTA = 10_000, 1e-5
NOISES, CLIENTS, ROUNDS = (0.5, 0.8, 1.0, 2.0, 5.0), (10, 100, 1000, 5000), (1, 100, 5000)
VERSION = metadata.version("dp-accounting")
STORED = Path(__file__).with_name("dp_accounting.json")


def event(noise, clients, sampling):
    """Return a round."""
    if sampling == "none":
        return dp.GaussianDpEvent(noise)
    if sampling == "poisson":
        return dp.PoissonSampledDpEvent(clients / POPULATION, dp.GaussianDpEvent(noise))
    # Replacing a client moves the sum by twice the clip.
    return dp.SampledWithoutReplacementDpEvent(POPULATION, clients, dp.GaussianDpEvent(noise / 2))


def epsilon(noise, clients, rounds, sampling, accountant):
    """Return epsilon."""
    if accountant == "pld":
        made = PLDAccountant()
    elif sampling == "fixed_size":
        made = RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    else:
        made = RdpAccountant()
    return made.compose(event(noise, clients, sampling), rounds).get_epsilon(DELTA)


def main():
    """Compute, store beside this file."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))["rows"] if STORED.exists() else itertools.repeat({})
    asked = [
        (sampling, *of_round)
        for sampling in ("poisson", "fixed_size", "none")
        for of_round in itertools.product(NOISES, CLIENTS if sampling != "none" else CLIENTS[:1], ROUNDS)
    ]
    rows = []
    for (sampling, noise, clients, rounds), before in zip(asked, stored, strict=False):
        row = {"noise_multiplier": noise, "rounds": rounds, "clients_per_round": clients, "sampling": sampling}
        row |= before | {f"rdp {VERSION}": epsilon(noise, clients, rounds, sampling, "rdp")}
        if sampling == "poisson" and noise in NOISES[2:4] and clients in CLIENTS[:2] and VERSION == "0.6.0":
            row["pld"] = epsilon(noise, clients, rounds, sampling, "pld")
        rows.append(row)
    text = json.dumps({"population": POPULATION, "delta": DELTA, "rows": rows}).replace('{"noise', '\n{"noise')
    STORED.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
