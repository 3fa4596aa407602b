"""From client ids to batches: client id -> arrays -> `Dataset`."""

from fedsim_np.datasets import emnist
from fedsim_np.datasets.client_data import ClientData, InMemoryClientData
from fedsim_np.datasets.dataset import Dataset
from fedsim_np.datasets.hdf5 import HDF5ClientData, write_hdf5
from fedsim_np.datasets.schema import Field, Schema
from fedsim_np.datasets.sources import ArraySpec

__all__ = [
    "ArraySpec",
    "ClientData",
    "Dataset",
    "Field",
    "HDF5ClientData",
    "InMemoryClientData",
    "Schema",
    "emnist",
    "write_hdf5",
]
