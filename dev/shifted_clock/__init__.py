"""A publisher whose machine's clock is wrong."""
