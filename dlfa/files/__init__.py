"""Files: written as a whole or not at all, read with errors that name them, and where caches go."""
