"""The ops status contract: what each service says of itself, and the floor that they make together.

    table      the ladder, what gates, the calendars: pure functions over ``specs/ops_status``
    floor      the worst of all services, in a declared order
    document   every rule of ``GET /ops/status`` and of ``GET /ops/floor``
    poll       asking the services of a running system: ``drillproof floor``
"""

from harness.contracts.ops_status.document import Contract

__all__ = ["Contract"]
