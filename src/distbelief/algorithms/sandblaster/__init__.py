"""Sandblaster (Dean et al. 2012, section 4.2): batch methods on the shards, their gradients by portions."""
