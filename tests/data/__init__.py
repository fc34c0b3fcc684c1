"""A package, since other tests use its rows, and since benchmarks/data.py would go before a folder that is none."""
