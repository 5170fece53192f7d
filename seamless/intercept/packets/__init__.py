"""The whole-packet interceptors: capture IP packets at the ingress, and release them at the egress."""
