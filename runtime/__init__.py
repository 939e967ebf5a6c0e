"""Putting it together: settings, the composition root, telemetry, the health endpoints and the command line.

The only package that reads the environment, names a concrete transport and imports structlog. Nothing imports it.
"""
