"""Model parallelism: one network over the ranks of a replica (Dean et al. 2012, section 3)."""

from distbelief.partition.cut import Cut
from distbelief.partition.network import PartitionedNetwork
from distbelief.partition.peers import Peers
from distbelief.partition.plan import Message, Plan
from distbelief.partition.prediction import predict

__all__ = ["Cut", "Message", "PartitionedNetwork", "Peers", "Plan", "predict"]
