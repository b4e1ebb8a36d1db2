"""A real Kubernetes API server for custom resources: schemas, CEL rules, strict decoding, server-side apply.

It is the `apiextensions-apiserver` of Kubernetes with Debian's etcd. `found.py` says where it is looked for.
"""
