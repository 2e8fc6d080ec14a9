"""Locally connected layers against NumPy in float64, finite differences and PyTorch."""

from filter_layers import FilterLayerTests, Kernels

from distbelief.kernels import local_backward, local_forward, local_scratch

KERNELS = Kernels(local_forward, local_backward, local_scratch, tied=False)


class TestLocal(FilterLayerTests):
    kernels = KERNELS
