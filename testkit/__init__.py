"""For the tests of your own sagas: a harness with a virtual clock, goldens, and conformance suites for transports."""

from testkit.golden import Golden
from testkit.harness import Harness, Sent

__all__ = ["Golden", "Harness", "Sent"]
