"""Runs as a page for the browser."""
