"""From client ids to batches: client id -> arrays -> `Dataset`.

A data set is a `ClientData`: ids, and a `Dataset` of each when it is asked for. Of arrays and files `partition` makes
one; of those that are drawn `fedprox_synthetic` is the shortest.
"""

from fedsim_np.datasets import emnist, fedprox_synthetic, partition, synthetic
from fedsim_np.datasets.client_data import ClientData, InMemoryClientData
from fedsim_np.datasets.dataset import Dataset
from fedsim_np.datasets.describe import Description, describe
from fedsim_np.datasets.hdf5 import HDF5ClientData
from fedsim_np.datasets.hdf5_check import CheckedFile, check_hdf5
from fedsim_np.datasets.hdf5_writing import write_hdf5
from fedsim_np.datasets.sample import load_sample
from fedsim_np.datasets.schema import Field, Schema
from fedsim_np.datasets.sources import ArraySpec
from fedsim_np.datasets.synthetic import SyntheticClientData

__all__ = [
    "ArraySpec",
    "CheckedFile",
    "ClientData",
    "Dataset",
    "Description",
    "Field",
    "HDF5ClientData",
    "InMemoryClientData",
    "Schema",
    "SyntheticClientData",
    "check_hdf5",
    "describe",
    "emnist",
    "fedprox_synthetic",
    "load_sample",
    "partition",
    "synthetic",
    "write_hdf5",
]
