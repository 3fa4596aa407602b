"""What the builders share: their arguments' checks, and the composition of a process."""

from __future__ import annotations

from collections.abc import Callable

from fedsim_np.errors import argument_type_error, check_int
from fedsim_np.learning.aggregators import Aggregator, MeanFactory, UnweightedMeanFactory
from fedsim_np.learning.client_work import ClientWeighting, ClientWork
from fedsim_np.learning.engines import ExecutorArgument, checked_engine, checked_executor
from fedsim_np.learning.models import Model, as_model
from fedsim_np.learning.optimizers import Optimizer, as_optimizer, build_sgdm
from fedsim_np.learning.process import LearningProcess, MetricsAggregator, compose_learning_process

ModelFn = Callable[[], Model] | Model
OptimizerFn = Optimizer | Callable[[], Optimizer]


def build_process(
    model_fn: ModelFn,
    make_client_work: Callable[[Model], ClientWork],
    *,
    server_optimizer_fn: OptimizerFn | None,
    model_aggregator: Aggregator | None,
    metrics_aggregator: MetricsAggregator | None,
    engine: str,
    executor: ExecutorArgument,
    cache_bytes: int,
    weighted: bool = True,
    server_learning_rate: float = 1.0,
) -> LearningProcess:
    """Compose a builder's process; `server_learning_rate` is that of SGD, the default at the server.

    Raises
    ------
    TypeError
        If an argument is of another kind: an optimizer's class for an optimizer, a weighted aggregator for an
        unweighted one.
    """
    aggregator = model_aggregator
    if aggregator is None:
        aggregator = MeanFactory() if weighted else UnweightedMeanFactory()
    if not isinstance(aggregator, Aggregator) or aggregator.is_weighted is not weighted:
        kind = "a weighted Aggregator" if weighted else "an unweighted Aggregator (is_weighted = False)"
        raise argument_type_error("model_aggregator", kind, aggregator)
    checked_engine(engine)
    checked_executor(executor)
    check_int("cache_bytes", cache_bytes, minimum=0)
    if metrics_aggregator is not None and not callable(metrics_aggregator):
        rule = "a function such as metrics.sum_then_finalize"
        raise argument_type_error("metrics_aggregator", rule, metrics_aggregator)
    model = as_model(model_fn)
    if server_optimizer_fn is None:
        server_optimizer_fn = build_sgdm(server_learning_rate)
    server_optimizer = as_optimizer(server_optimizer_fn, "server_optimizer_fn")
    return compose_learning_process(
        model,
        make_client_work(model),
        aggregator,
        server_optimizer,
        metrics_aggregator,
        engine=engine,
        executor=executor,
        cache_bytes=cache_bytes,
    )


def checked_weighting(client_weighting: ClientWeighting) -> ClientWeighting:
    """Return a client weighting, or raise a TypeError."""
    if not isinstance(client_weighting, ClientWeighting):
        raise argument_type_error("client_weighting", "a member of ClientWeighting", client_weighting)
    return client_weighting
