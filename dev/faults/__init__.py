"""The fault suite: publish under load, break parts at random moments, and prove that no event was lost.

`python -m dev faults` runs it. The verdict reads the servers directly, and trusts only the 2xx answers of a function.
Faults, their moments and their lengths come from one seed. The load between them does not.
"""
