"""The services beside the trader: market data, strategy, execution, ingest, and the floor that shows them all.

Each is a machine that says at ``GET /ops/status`` what state it is in, by the contract in ``specs/ops_status``. The rules are
written here once more, as straight-line code (`status`, `hours`, `switch`): whoever judges these documents evaluates the
tables, and shares no line with those who are judged.
"""
