"""The training procedures, each readable beside the paper."""
