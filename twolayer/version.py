"""The version of twolayer."""

__version__ = "0.1.0"
