"""Aggregates and attacks by ByzFL 0.0.11, which the tests hold the robust rules and the attacks to.

usage: python tests/goldens/make_byzfl.py

Needs byzfl==0.0.11, torch and scipy. (Of byzfl only the rules are imported: all of it would need torchvision as well.)
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np

package = types.ModuleType("byzfl")
package.__path__ = list(importlib.util.find_spec("byzfl").submodule_search_locations)
sys.modules["byzfl"] = package
from byzfl.aggregators import aggregators as rules  # noqa: E402
from byzfl.attacks import attacks  # noqa: E402


def main():
    """Compute, store beside this file."""
    rows = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        k, f = int(rng.integers(9, 16)), int(rng.integers(1, 3))
        x = rng.normal(size=(k, 6)) + np.where(np.arange(k) < f, rng.normal() * 8, 0)[:, np.newaxis]
        x = np.round(x, 3)
        centred = x - x.mean(axis=0)
        clipping = rules.CenteredClipping(L=3, tau=1.5)
        made = {
            "median": rules.Median()(x),
            "trimmed_mean": rules.TrMean(f)(x),
            "krum": rules.Krum(f + 1)(x),  # ByzFL's Krum takes one neighbour more
            "multi_krum": rules.MultiKrum(f + 1)(x),
            "geometric_median": rules.GeometricMedian(nu=0.1, T=3)(centred),  # it starts at zero
            "centred_clipping": clipping(x),
            "centred_clipping_again": clipping(x[:-1]),  # it starts where it ended
            "inner_product_manipulation": attacks.InnerProductManipulation(tau=1.5)(x[f:]),
            "a_little_is_enough": attacks.ALittleIsEnough(tau=1.2)(x[f:]),
        }
        rows.append({"f": f, "x": x.tolist()} | {name: np.round(value, 9).tolist() for name, value in made.items()})
    text = json.dumps(rows).replace('{"f', '\n{"f') + "\n"
    Path(__file__).with_name("byzfl.json").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
