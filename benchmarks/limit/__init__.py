"""The limit: what functions-framework can do at most."""
