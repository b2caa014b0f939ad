"""Gradient descent on Linear-ReLU-Linear, one file an engine."""
