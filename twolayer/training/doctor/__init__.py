"""`twolayer doctor`: whether PyTorch computes the right numbers on this machine, and how fast."""
