"""One's own data as clients: arrays, CSV files, LEAF's JSON files; clients as they are, or made up.

Where the data say whose each example is, `from_arrays`, `from_csv`, `from_dataframe` and `from_leaf_json` make the
clients. Where nobody owns anything yet, examples are dealt out to clients that differ in a way that is stated and
seeded: `iid` (not at all), `dirichlet`, `shards` and `similarity` (in their labels), `quantity_skew` (in their sizes).
A partition is at heart an array of one client number per example (`assign_iid` and its siblings), so an example cannot
be lost, nor dealt out twice.

In flwr-datasets what `from_arrays` does is called NaturalIdPartitioner, and of the kinds of `iid`, `dirichlet` and
`shards` are IidPartitioner, DirichletPartitioner and ShardPartitioner, with rules in detail and draws of their own.
"""

from fedsim_np.datasets.partition.arrays import (
    LabelledClientData,
    dirichlet,
    from_arrays,
    iid,
    pool,
    quantity_skew,
    shards,
    similarity,
    split_examples,
)
from fedsim_np.datasets.partition.assignments import (
    assign_dirichlet,
    assign_iid,
    assign_quantity_skew,
    assign_shards,
    assign_similarity,
)
from fedsim_np.datasets.partition.frames import from_dataframe, read_dataframe
from fedsim_np.datasets.partition.leaf import from_leaf_json
from fedsim_np.datasets.partition.tables import Table, from_csv, read_csv

__all__ = [
    "LabelledClientData",
    "Table",
    "assign_dirichlet",
    "assign_iid",
    "assign_quantity_skew",
    "assign_shards",
    "assign_similarity",
    "dirichlet",
    "from_arrays",
    "from_csv",
    "from_dataframe",
    "from_leaf_json",
    "iid",
    "pool",
    "quantity_skew",
    "read_csv",
    "read_dataframe",
    "shards",
    "similarity",
    "split_examples",
]
