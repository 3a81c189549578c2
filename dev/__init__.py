"""The local stack: real servers, the functions as in their containers, stand-ins for the Knative sources.

What `make demo` and `make dev` start is what the tests start. Nothing of the product imports this package.
"""
