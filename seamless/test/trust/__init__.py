"""What issue 4 promises, one module for each promise; docs/security.rst says which."""
