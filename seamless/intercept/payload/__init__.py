"""The payload interceptor: captures TCP connections at the ingress, and connects for them at the egress."""
