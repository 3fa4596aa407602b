"""Which way a chunk is trained in, by its shapes alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.learning.engines.costs import Shapes, cheapest, costs, counts, memory


def columns(sizes, epochs=1, batch=20, d=1):
    """Clients of so many rows; x costs no memory."""
    clients = []
    for n in sizes:
        x, visits = np.broadcast_to(np.zeros((), np.float32), (n, d)), n * epochs
        lengths = np.diff([*range(0, visits, batch), visits])
        rows = np.broadcast_to(np.zeros((), np.intp), (visits,))
        clients.append(ClientColumns(x, np.broadcast_to(np.int32(0), (n, 1)), rows, lengths, n))
    return clients


@pytest.mark.parametrize(
    ("what", "clients", "d", "c", "way"),
    [
        ("the tutorial's round", columns([100] * 10, epochs=5), 784, 10, "gram"),
        ("a wide round", columns([100] * 50), 784, 10, "gram"),
        ("FedProx's Synthetic(1, 1)", columns([50, 80, 120, 400, 3000], epochs=20, batch=10), 60, 10, "presorted"),
        ("one that towers over 99 others", columns([40_000] + [20] * 99), 20, 10, "presorted"),
        ("one of 100,000 x 784", columns([100_000]), 784, 10, "presorted"),
        ("30 of 700 to 14,000 rows and 100 classes", columns(range(700, 14_000, 443)), 50, 100, "presorted or cohort"),
        ("many of one row", columns([1] * 100), 784, 10, "gram"),
        ("nobody has an example", columns([0, 0]), 784, 10, "cohort"),
    ],
)
def test_the_way_of_a_chunk(what, clients, d, c, way):
    assert cheapest(clients, d, c) in way.split(" or "), what


@given(
    sizes=st.lists(st.integers(0, 10_000), min_size=1, max_size=20),
    epochs=st.integers(1, 20),
    batch=st.integers(1, 500),
    d=st.integers(1, 10_000),
    c=st.integers(1, 100),
)
def test_costs_grow_and_memory_is_bounded(sizes, epochs, batch, d, c):
    clients = columns(sizes, epochs, batch)
    shapes, twice = Shapes.of(clients, d, c), Shapes.of(columns(sizes, 2 * epochs, batch), d, c)
    assert all(n >= 0 for of_way in counts(shapes).values() for n in of_way.values())
    assert all(cost <= costs(twice)[way] for way, cost in costs(shapes).items())
    way = cheapest(clients, d, c)
    if way != "presorted" and sum(sizes):
        assert memory(shapes)[way] <= max(2 * sum(sizes) * d, 2**24)


def test_a_batch_that_is_much_longer_than_the_others_is_padding_for_these():
    short = columns([20] * 99, batch=20)
    assert cheapest([*columns([40_000], batch=40_000), *short], 20, 10) == "presorted"
    assert cheapest([*columns([4000], batch=4000), *short], 784, 10) == "presorted"
