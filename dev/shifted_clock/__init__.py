"""A `publish` function with a wrong clock."""
