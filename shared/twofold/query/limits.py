"""TODO module."""

MAX_PARAMETERS = 200


MAX_LIMIT = 1000


MAX_TYPES = 50
"""MongoDB merges one ordered scan for each; beyond 200 it would sort in memory instead."""
