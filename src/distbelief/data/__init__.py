"""Data: where examples come from, their split over replicas, and shuffled batches. One rank, no others."""

from distbelief.data.arrays import read_array
from distbelief.data.batches import Batch, Batches
from distbelief.data.dataset import Dataset, dataset_of, open_dataset
from distbelief.data.fashion_mnist import provide as provide_fashion_mnist
from distbelief.data.generated import Generated
from distbelief.data.idx import read_idx
from distbelief.data.image_folder import ImageFolder
from distbelief.data.numpy_files import read_npy, read_npz
from distbelief.data.source import Source
from distbelief.data.split import held_out, part

__all__ = [
    "Batch",
    "Batches",
    "Dataset",
    "Generated",
    "ImageFolder",
    "Source",
    "dataset_of",
    "held_out",
    "open_dataset",
    "part",
    "provide_fashion_mnist",
    "read_array",
    "read_idx",
    "read_npy",
    "read_npz",
]
