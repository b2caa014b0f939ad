"""Runs as summaries, comparisons, charts and pages."""
