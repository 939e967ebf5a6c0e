"""`python -m examples.ordering`: serves at ORDERING_HOST:ORDERING_PORT (127.0.0.1:8000), on ORDERING_DATABASE_URL."""

import os
import sys

import uvicorn

from examples.ordering.service import service

if __name__ == "__main__":
    url = os.environ.get("ORDERING_DATABASE_URL")
    if not url:
        sys.exit("ORDERING_DATABASE_URL is not set; write postgresql://user:password@host:5432/database")
    host, port = os.environ.get("ORDERING_HOST", "127.0.0.1"), int(os.environ.get("ORDERING_PORT", "8000"))
    uvicorn.run(service(url), host=host, port=port)
