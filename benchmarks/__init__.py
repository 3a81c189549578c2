"""How fast `store` and `publish` are, beside the naive functions and the limit, all in one run: `make bench`.

Nothing is reported of a run in which the servers hold less than was acknowledged. docs/performance.md explains it.
"""
