"""What one transaction does, and how its messages reach the broker: inbox, outbox, relay.

`outbox.interface` is the seam that everything above is written against; `outbox.unit` carries it out in SQL.
"""
