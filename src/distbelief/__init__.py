"""Large scale distributed deep networks (Dean et al., NIPS 2012) on CPU clusters.

Importing the package starts no MPI.
"""

__version__ = "0.1.0"
