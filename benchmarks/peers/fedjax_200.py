"""200 rounds in FedJAX, start to end: its fed_avg on clients kept in memory once read; see README.md."""

import fedjax
import jax
import jax.numpy as jnp
from peers import BATCH, RATE, drawn, read_and_kept, report_run


def run(path, rounds, clients):
    """Return the last model's loss and accuracy on the last clients."""
    ids, client = read_and_kept(path, lambda x, y: fedjax.ClientDataset({"x": x.reshape(-1, 28, 28, 1), "y": y}))
    model = fedjax.models.emnist.create_logistic_model(only_digits=True)
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(RATE),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1),  # without a seed: a new order every time
    )
    state = algorithm.init(jax.tree_util.tree_map(jnp.zeros_like, model.init(jax.random.PRNGKey(0))))
    for round_num, cohort in enumerate(drawn(ids, rounds, clients)):
        keys = jax.random.split(jax.random.PRNGKey(round_num), clients)  # as FedJAX's samplers do
        state, _ = algorithm.apply(state, list(zip(cohort, map(client, cohort), keys, strict=True)))
    batches = fedjax.padded_batch_client_datasets(map(client, cohort), batch_size=100)
    metrics = fedjax.evaluate_model(model, state.params, batches)
    return metrics["loss"], metrics["accuracy"]


if __name__ == "__main__":
    report_run(["fedjax", "jax", "numpy", "h5py"], run)
