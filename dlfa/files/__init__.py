"""Files: written as a whole or not at all, by one process at a time, and where they go."""
