"""A Kubernetes API server, Knative's definitions and Knative's own source adapters: the real ones, on one machine.

There are no nodes and no controllers: what a scheduler, a kubelet or a Knative controller would write is written by
tests, over the API. The programs are built by Go, once, into the cache.
"""
