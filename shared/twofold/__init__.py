"""Event storage for Knative: the package that every function ships with."""
