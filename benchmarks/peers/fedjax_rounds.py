"""Federated averaging in FedJAX, its own fed_avg and evaluation; see README.md."""

import fedjax
import jax
from peers import BATCH, RATE, load, report

CLIENTS = load()


def client_data(count):
    """Return FedJAX's clients: (id, dataset, key)."""
    key = jax.random.PRNGKey(0)
    return [
        (b"%d" % i, fedjax.ClientDataset({"x": x.reshape(-1, 28, 28, 1), "y": y}), key)
        for i, (x, y) in enumerate(CLIENTS[:count])
    ]


if __name__ == "__main__":
    model = fedjax.models.emnist.create_logistic_model(only_digits=True)
    gradient = fedjax.model_grad(model)

    def algorithm(epochs):
        """Return FedAvg with that many local epochs."""
        return fedjax.algorithms.fed_avg.federated_averaging(
            gradient,
            fedjax.optimizers.sgd(RATE),
            fedjax.optimizers.sgd(1.0),
            fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=epochs, seed=1),
        )

    parameters = model.init(jax.random.PRNGKey(1))
    evaluate = fedjax.ModelEvaluator(model)
    five, one = algorithm(5), algorithm(1)
    states = five.init(parameters), one.init(parameters)
    ten, hundred, everyone = client_data(10), client_data(100), client_data(len(CLIENTS))
    batches = fedjax.PaddedBatchHParams(batch_size=BATCH)

    def evaluation():
        """Evaluate every client."""
        return dict(
            evaluate.evaluate_per_client_params([(c, d.padded_batch(batches), parameters) for c, d, _ in everyone])
        )

    block = lambda output: jax.block_until_ready(output[0].params)  # noqa: E731
    report(
        "fedjax",
        {
            "tutorial": lambda: block(five.apply(states[0], ten)),
            "wide": lambda: block(one.apply(states[1], hundred)),
            "evaluation": evaluation,
        },
    )
