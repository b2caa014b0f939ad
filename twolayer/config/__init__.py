"""Configs: keys, YAML, validation and loading."""
