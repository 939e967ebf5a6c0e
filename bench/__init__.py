"""The benchmark: Antiphon's ordering saga beside two hand-written services, in the same run, on the same servers."""
