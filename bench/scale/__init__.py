"""The benchmark of scale: what becomes of Antiphon's speed, costs and memory as there is more of everything."""
