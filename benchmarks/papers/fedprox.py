"""FedProx, Li et al. 2020: stragglers that are dropped, and stragglers that do what they can.

usage: fedprox.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/1812.06127, recipe as in the authors' code. Synthetic(1,1), K = 30 devices, softmax regression,
SGD at 0.01 in batches of 10, E = 20, 10 of 30 devices a round, uniformly, weights n_k, 200 rounds; 90/10 train and
test. 0, 50 or 90 % of the devices of a round are stragglers: FedAvg drops them; FedProx lets them do 1 to 19 epochs,
with mu = 0 or 1. The paper shows one instance of the data; here are seeds 1 to 5. Accuracies are those of the pooled
test data, means of the last 20 rounds; dissimilarity is the unweighted mean of |grad F - grad F_k|^2, every 20 rounds.
"""

import _paper
import numpy as np

import fedsim_np as fed
from fedsim_np import analysis
from fedsim_np.datasets import fedprox_synthetic
from fedsim_np.learning import models

RATE, E, CLIENTS, ROUNDS, SEEDS = 0.01, 20, 10, 200, (1, 2, 3, 4, 5)
STRAGGLERS = (0.0, 0.5, 0.9)
FEWER = SEEDS[:1]
"""Seeds of which 0 and 50 % are run as well."""


def model():
    """Return the model."""
    return models.SoftmaxRegression(60, 10, "stable")


def runs_of(seed, stragglers, rounds):
    """Return name -> accuracy, loss and dissimilarity, on the way."""
    train, test = fedprox_synthetic.load_data(1.0, 1.0, seed=seed)
    kept = {c: train.create_dataset_for_client(c) for c in train.client_ids}
    of_all = _paper.accuracy_and_loss(model, [data.batch(10_000) for data in kept.values()])
    of_test = _paper.accuracy_and_loss(
        model, [test.create_dataset_for_client(c).batch(10_000) for c in test.client_ids]
    )
    objective = analysis.Objective.of(model, [data.batch(10_000) for data in kept.values()])
    sample = fed.program.build_uniform_sampling_fn(train.client_ids, random_seed=seed)
    found = {}
    for name, mu in (("FedAvg", 0.0), ("FedProx, mu = 0", 0.0), ("FedProx, mu = 1", 1.0)):
        if name == "FedProx, mu = 0" and not stragglers:
            continue  # the same as FedAvg
        part = fed.program.Participation(stragglers=stragglers, seed=seed, drop_stragglers=name == "FedAvg")
        process = fed.learning.build_weighted_fed_prox(model, mu, fed.learning.optimizers.build_sgdm(RATE))

        def cohort(round_num, part=part):
            return part.cohort(
                round_num,
                sample(round_num, CLIENTS),
                lambda c, epochs: kept[c].repeat(epochs).shuffle(10_000, seed=seed).batch(10),
                E,
            )

        seen = []

        def evaluate(state, seen=seen):
            seen.append(1)
            dissimilarity = None
            if len(seen) % 4 == 1:
                weights = state.global_model_weights
                total = objective(weights)[1]
                squares = [
                    sum(
                        float(np.square(a - b).sum())
                        for a, b in zip(objective.of_client(weights, i)[1], total, strict=True)
                    )
                    for i in range(len(objective.clients))
                ]
                dissimilarity = float(np.mean(squares))
            return of_test(state)[0], of_all(state)[1], dissimilarity

        _, way = _paper.run(process, cohort, rounds, evaluate, every=5 if rounds > 20 else 1)
        found[name] = {
            "test accuracy": [round(a, 4) for a, _, _ in way],
            "loss": [round(loss, 4) for _, loss, _ in way],
            "dissimilarity": [round(d, 3) for _, _, d in way if d is not None],
        }
    return found


def last(run, name, count=4):
    """Return the mean of the last evaluations: of 20 rounds."""
    return float(np.mean(run[name][-count:]))


def measure(quick):
    """Return the result."""
    seeds, fewer, rounds = (SEEDS[:1], SEEDS[:1], 2) if quick else (SEEDS, FEWER, ROUNDS)
    found = {
        f"{100 * share:.0f} % stragglers": {
            seed: runs_of(seed, share, rounds) for seed in (fewer if share < 0.9 else seeds)
        }
        for share in STRAGGLERS
    }
    none, half, most = found.values()
    avg, zero, one = "FedAvg", "FedProx, mu = 0", "FedProx, mu = 1"

    def gains(runs, name, a, b):
        return [last(of[a], name) - last(of[b], name) for of in runs.values()]

    accuracy, by_zero = (np.array(gains(most, "test accuracy", of, avg)) * 100 for of in (one, zero))
    claims = [
        _paper.claim(
            "90 % stragglers: FedProx with mu = 1 has a better test accuracy than FedAvg (in points; the paper's 22 "
            "are a mean over its data sets)",
            "+22",
            _paper.spread(accuracy, 1),
            accuracy > 0,
        ),
        _paper.claim(
            "22 points lie within what instances of Synthetic(1,1) give",
            "22",
            f"{accuracy.min():.1f} to {accuracy.max():.1f}",
            accuracy.min() <= 22 <= accuracy.max(),
        ),
        _paper.claim(
            "90 %: partial work alone (mu = 0) is better than dropping it (in points of accuracy)",
            "above 0",
            _paper.spread(by_zero, 1),
            by_zero > 0,
        ),
    ]
    for share, runs, rivals in (("0 %", none, (avg,)), ("50 %", half, (avg, zero)), ("90 %", most, (avg, zero))):
        for rival in rivals:
            losses = np.array(gains(runs, "loss", one, rival))
            claims.append(
                _paper.claim(
                    f"{share}: the training loss with mu = 1 is below that of {rival} (difference)",
                    "below 0",
                    _paper.spread(losses),
                    losses < 0,
                )
            )
    ratios = [np.mean(of[one]["dissimilarity"]) / np.mean(of[avg]["dissimilarity"]) for of in none.values()]
    claims.append(
        _paper.claim(
            "0 %: mu = 1 makes the gradients' dissimilarity smaller (ratio to FedAvg's, over the run)",
            "below 1",
            _paper.spread(ratios, 2),
            np.array(ratios) < 1,
        )
    )
    return {"paper": "FedProx: Li et al. 2020", "seeds": seeds, "rounds": rounds, "claims": claims, "runs": found}


def draw(result):
    """Draw loss and accuracy over rounds, a column for each share of stragglers, as the paper's figure 1 does."""
    figure, panels = _paper.figure(2, len(result["runs"]), width=3.6, height=2.8)
    for column, (share, of_seeds) in enumerate(result["runs"].items()):
        for row, name in enumerate(("loss", "test accuracy")):
            for i, name_of in enumerate(("FedAvg", "FedProx, mu = 0", "FedProx, mu = 1")):
                ways = [of[name_of][name] for of in of_seeds.values() if name_of in of]
                rounds = np.linspace(0, result["rounds"], len(ways[0])) if ways else ()
                for number, way in enumerate(ways):
                    label = name_of if number == 0 else None
                    panels[row, column].plot(rounds, way, f"C{i}", label=label, linewidth=1, alpha=0.7)
            panels[row, column].set(xlabel="rounds", ylabel=name)
        panels[0, column].set(title=f"{share}, instances: {len(of_seeds)}", yscale="log")
    panels[0, 0].legend(fontsize=7)
    panels[0, -1].legend(fontsize=7)
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
