"""Measurements that print tables: ``python -m bench`` lists them."""
