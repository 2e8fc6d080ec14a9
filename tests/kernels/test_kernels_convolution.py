"""Convolutions against NumPy in float64, finite differences and PyTorch."""

from filter_layers import FilterLayerTests, Kernels

from distbelief.kernels import convolution_backward, convolution_forward, convolution_scratch

KERNELS = Kernels(convolution_forward, convolution_backward, convolution_scratch, tied=True)


class TestConvolution(FilterLayerTests):
    kernels = KERNELS
