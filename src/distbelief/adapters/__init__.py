"""What users bring, made fit for the algorithms: models of their own, data of their own, modules of PyTorch."""

from distbelief.adapters.data import ArrayData
from distbelief.adapters.model import Model

__all__ = ["ArrayData", "Model"]
