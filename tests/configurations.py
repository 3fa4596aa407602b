"""The runs that were made with TFF and are repeated by the tests, written once for both.

A part of a run (an optimizer, an aggregator, a schedule) is written ``[name, arguments]``, its arguments parts or
numbers: `make` looks the name up in TFF or in fedsim_np, where it means the same.
"""

from functools import partial

SGD = ["build_sgdm", {"learning_rate": 0.02}]
AVERAGE = ["build_sgdm", {"learning_rate": 1.0}]
MEAN, PLAIN_MEAN = ["MeanFactory", {}], ["UnweightedMeanFactory", {}]
QUANTILE = {"initial_estimate": 0.3, "target_quantile": 0.5, "learning_rate": 0.4}
TEN_CLIENTS = [[0, 10]]
NEW_CLIENTS = [[0, 6], [6, 12], [12, 18], [18, 24], [24, 30]]


def run(builder, parts, cohorts=NEW_CLIENTS, model="keras", epochs=2, batch=20, buffer=100, seed=1, tolerance=5e-6):
    """Return one run: how the process is built, and what it is trained on, round by round."""
    return {
        "builder": builder,
        "parts": parts,
        "model": model,
        "epochs": epochs,
        "batch": batch,
        "buffer": buffer,
        "seed": seed,
        "cohorts": cohorts,
        "evaluated": [0, 10],
        "tolerance": tolerance,
    }


fed_avg = partial(run, "build_weighted_fed_avg")


def client(optimizer, **more):
    """Parts of federated averaging with that optimizer on the clients."""
    return {"client_optimizer_fn": optimizer, "server_optimizer_fn": AVERAGE, **more}


def server(optimizer, **more):
    """Parts of federated averaging with that optimizer at the server."""
    return {"client_optimizer_fn": SGD, "server_optimizer_fn": optimizer, **more}


def aggregated(aggregator):
    """Parts of federated averaging with that aggregator."""
    return {"client_optimizer_fn": SGD, "model_aggregator": aggregator}


RUNS = {
    "tutorial_keras": fed_avg(client(SGD), TEN_CLIENTS * 10, epochs=5),
    "tutorial_custom": fed_avg(client(SGD), TEN_CLIENTS * 10, "custom", epochs=5),
    # Optimizers: each once on the clients and once at the server.
    "momentum": fed_avg(
        {
            "client_optimizer_fn": ["build_sgdm", {"learning_rate": 0.01, "momentum": 0.5}],
            "server_optimizer_fn": ["build_sgdm", {"learning_rate": 0.7, "momentum": 0.9}],
        },
        seed=3,
    ),
    "client_adagrad": fed_avg(client(["build_adagrad", {"learning_rate": 0.005}]), batch=16),
    "client_adam": fed_avg(client(["build_adam", {"learning_rate": 0.002, "epsilon": 0.001}])),
    "client_adamw": fed_avg(
        client(["build_adamw", {"learning_rate": 0.002, "epsilon": 0.001, "weight_decay": 0.1}]), model="custom"
    ),
    "client_yogi": fed_avg(client(["build_yogi", {"learning_rate": 0.002}]), batch=32),
    "client_rmsprop": fed_avg(
        client(["build_rmsprop", {"learning_rate": 0.001, "decay": 0.8, "epsilon": 0.001}]), buffer=1
    ),
    "server_adagrad": fed_avg(
        server(["build_adagrad", {"learning_rate": 0.1, "initial_preconditioner_value": 0.05, "epsilon": 1e-5}])
    ),
    "server_adam": fed_avg(server(["build_adam", {"learning_rate": 0.02, "beta_2": 0.9, "epsilon": 0.01}])),
    "server_adamw": fed_avg(
        server(["build_adamw", {"learning_rate": 0.02, "epsilon": 0.01, "weight_decay": 0.5}]), model="custom"
    ),
    "server_yogi": fed_avg(server(["build_yogi", {"learning_rate": 0.03, "beta_1": 0.5, "epsilon": 0.01}])),
    "server_rmsprop": fed_avg(server(["build_rmsprop", {"learning_rate": 0.01, "epsilon": 0.01}])),
    # Schedules: per local step, per round of the server's optimizer, per round of the clients'.
    "scheduled_steps": fed_avg(
        {
            "client_optimizer_fn": [
                "schedule_learning_rate",
                {"optimizer": ["build_sgdm", {"momentum": 0.5}], "schedule_fn": ["inverse_time", {"rate": 0.05}]},
            ],
            "server_optimizer_fn": [
                "schedule_learning_rate",
                {
                    "optimizer": ["build_adam", {"learning_rate": 1.0, "epsilon": 0.01}],
                    "schedule_fn": ["inverse_time", {"rate": 0.04}],
                },
            ],
        }
    ),
    "scheduled_rounds": run(
        "build_weighted_fed_avg_with_optimizer_schedule",
        {
            "client_learning_rate_fn": ["inverse_time", {"rate": 0.02}],
            "client_optimizer_fn": ["sgd_at", {}],
            "server_optimizer_fn": AVERAGE,
        },
    ),
    # FedProx and FedSGD.
    "fed_prox": run(
        "build_weighted_fed_prox",
        {"proximal_strength": 0.3, "client_optimizer_fn": ["build_adam", {"learning_rate": 0.002, "epsilon": 0.001}]},
    ),
    "fed_prox_unweighted": run(
        "build_unweighted_fed_prox",
        {
            "proximal_strength": 1.5,
            "client_optimizer_fn": ["build_sgdm", {"learning_rate": 0.02, "momentum": 0.5}],
            "server_optimizer_fn": ["build_sgdm", {"learning_rate": 0.8, "momentum": 0.5}],
        },
        model="custom",
        epochs=3,
    ),
    "fed_sgd": run("build_fed_sgd", {}),
    "fed_sgd_custom": run("build_fed_sgd", {"server_optimizer_fn": SGD}, model="custom", batch=7),
    # Mime Lite.
    "mime_momentum": run(
        "build_weighted_mime_lite", {"base_optimizer": ["build_sgdm", {"learning_rate": 0.01, "momentum": 0.9}]}
    ),
    "mime_unweighted": run(
        "build_unweighted_mime_lite",
        {
            "base_optimizer": ["build_adam", {"learning_rate": 0.002, "epsilon": 0.01}],
            "server_optimizer": ["build_sgdm", {"learning_rate": 0.8, "momentum": 0.5}],
        },
        model="custom",
        epochs=3,
    ),
    "mime_aggregators": run(
        "build_weighted_mime_lite",
        {
            "base_optimizer": ["build_adagrad", {"learning_rate": 0.003, "epsilon": 0.01}],
            "model_aggregator": ["clipping_factory", {"clipping_norm": 0.25, "inner_agg_factory": MEAN}],
            "full_gradient_aggregator": ["clipping_factory", {"clipping_norm": 0.1, "inner_agg_factory": MEAN}],
        },
        batch=16,
    ),
    "mime_rmsprop": run(
        "build_weighted_mime_lite",
        {"base_optimizer": ["build_rmsprop", {"learning_rate": 0.001, "decay": 0.5, "epsilon": 0.1}]},
    ),
    "mime_schedule": run(
        "build_mime_lite_with_optimizer_schedule",
        {
            "learning_rate_fn": ["inverse_time", {"rate": 0.02}],
            "base_optimizer": ["build_sgdm", {"learning_rate": 1.0, "momentum": 0.5}],
        },
    ),
    # Aggregators.
    "unweighted": run("build_unweighted_fed_avg", client(SGD), batch=200),
    "clipped": run(
        "build_unweighted_fed_avg",
        aggregated(["clipping_factory", {"clipping_norm": 0.25, "inner_agg_factory": PLAIN_MEAN}]),
    ),
    "clipped_adaptively": fed_avg(
        aggregated(["clipping_factory", {"clipping_norm": ["no_noise", QUANTILE], "inner_agg_factory": MEAN}])
    ),
    "zeroed_l1": fed_avg(
        aggregated(["zeroing_factory", {"zeroing_norm": 14.0, "inner_agg_factory": MEAN, "norm_order": 1.0}])
    ),
    "zeroed_l2": run(
        "build_unweighted_fed_avg",
        aggregated(["zeroing_factory", {"zeroing_norm": 0.28, "inner_agg_factory": PLAIN_MEAN, "norm_order": 2.0}]),
    ),
    "zeroed_adaptively": fed_avg(
        aggregated(
            [
                "zeroing_factory",
                {
                    "zeroing_norm": ["no_noise", {**QUANTILE, "initial_estimate": 0.02, "multiplier": 1.1}],
                    "inner_agg_factory": ["clipping_factory", {"clipping_norm": 0.2, "inner_agg_factory": MEAN}],
                },
            ]
        )
    ),
    "robust": run(
        "build_fed_sgd",
        {"server_optimizer_fn": SGD, "model_aggregator": ["robust_aggregator", {}]},
        model="custom",
    ),
    "robust_unweighted": run(
        "build_unweighted_fed_avg", aggregated(["robust_aggregator", {"zeroing": False, "weighted": False}])
    ),
    "debugged": fed_avg(aggregated(["add_debug_measurements", {"aggregation_factory": MEAN}])),
    "debugged_robust": run(
        "build_unweighted_fed_avg",
        aggregated(["robust_aggregator", {"weighted": False, "debug_measurements_fn": ["debug_fn", {}]}]),
    ),
    # Metrics of each client instead of their sum.
    "sampled_metrics": fed_avg(client(SGD, metrics_aggregator=["sampled", {}])),
}


def make(part, names):
    """Return what a part stands for; `names` gives the function of a name."""
    if isinstance(part, list) and len(part) == 2 and isinstance(part[0], str):
        return names(part[0])(**{key: make(value, names) for key, value in part[1].items()})
    return part
