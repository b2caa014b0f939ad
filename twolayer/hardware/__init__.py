"""What the machine has, and what a training takes of it."""
