"""A trained network on new rows."""
