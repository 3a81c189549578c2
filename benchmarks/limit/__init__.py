"""The limit of functions-framework."""
