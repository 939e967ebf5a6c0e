"""Participants, one module per business process: user code, which the engine finds by `ANTIPHON_MODULES`."""
