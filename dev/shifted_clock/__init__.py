"""A `publish` with a wrong clock."""
