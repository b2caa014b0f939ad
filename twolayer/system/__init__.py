"""What differs between Linux, macOS and Windows. No other module uses what only some systems have."""
