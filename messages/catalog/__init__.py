"""The messages of this repository's business processes, one module per process. The engine never imports them."""
