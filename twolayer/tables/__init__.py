"""Table files: read, typed, and encoded as arrays."""
