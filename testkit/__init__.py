"""For the tests of your own sagas: a harness with a virtual clock, and conformance suites for transports."""

from testkit.harness import Harness, Sent

__all__ = ["Harness", "Sent"]
