"""The rates of `store` and `publish` beside the naive functions and the limit, in one run: `make bench`.

A run in which the servers hold less than the acknowledged events gives no figures. docs/performance.md explains more.
"""
