"""A Kubernetes API server with Knative's definitions, webhooks and source adapters, built by Go into the cache.

The cluster has no nodes and no controllers. Tests write the objects of a scheduler, a kubelet or a controller.
"""
