"""Many runs with one command: their points, their folder and their table."""
