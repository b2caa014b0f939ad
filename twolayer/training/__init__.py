"""From a config to a trained network."""
