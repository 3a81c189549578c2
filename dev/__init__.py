"""The local stack: real servers, the functions, and stand-ins for the Knative sources.

`make demo`, `make dev` and the tests start the same code. The product never imports this package.
"""
