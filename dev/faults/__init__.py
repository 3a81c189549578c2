"""The fault suite: publish under load, break everything at random moments, and prove that nothing was lost.

`python -m dev faults` runs it. The verdict reads the servers directly, and trusts nothing that a function said but its
2xx answers. Faults, their moments and their lengths come from one seed; what the load does between them does not.
"""
