"""How this process uses the processor it runs on: cores, BLAS, bfloat16."""

from distbelief.processor.prepare import prepare

__all__ = ["prepare"]
