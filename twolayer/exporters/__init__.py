"""Models and trainings as files for use without twolayer."""
