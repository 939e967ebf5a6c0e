"""Suites that every implementation of a seam passes, ours and yours: subclass one and give it its fixture."""
