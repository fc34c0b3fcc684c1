"""Run folders, locks, the cache and atomic writes: the only code that knows file names."""
