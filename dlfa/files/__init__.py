"""Files: atomic writing, reading with errors that name the file, and the cache directory."""
