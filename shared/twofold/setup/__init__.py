"""Set-up: collections, indexes, roles, users and the topic. `python -m twofold.setup` runs it; running it twice is safe."""
