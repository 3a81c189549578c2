"""Set-up of collections, indexes, roles, users and the topic.

`python -m twofold.setup` runs it. A second run changes nothing.
"""
