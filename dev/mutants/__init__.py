"""Mutants: small wrong changes of the product, each with the tests that must fail."""
