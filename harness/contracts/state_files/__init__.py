"""State files: JSON by which a system tells what it has and what it risks. The v7.6 State Contract.

    SCHEMA      no lawful JSON object, or not of the surface's schema     KEY         a key of a full document is missing
    TIME        no time, or one that readers take differently             UNIT        a fraction that is none
    SEMANTIC    the document contradicts itself                           RECOMPUTED  a number that does not follow
    LIMIT       a limit and its flag, an anomaly and its cause disagree   WRITER      written by somebody else
    CROSS       two files contradict one another                          STALE       far behind the others
    MANIFEST    a file, surface or owner that the manifest does not name  MISSING     a surface is not there
    UNREADABLE  no ordinary file, or too large

A *breach* is what the contract forbids, a *deviation* what it lets pass (specs/state/README.md).

    finding     findings and their severity          surfaces   specs/state, read once
    times       the seven spellings of a time        books      nav, its mirror, positions, ledger, key figures
    diagnostics vetoes, exit pipeline, liveness      risk       limits, drawdown states, anomalies, risk mode
    router      execution quality and scores         factors    covariance, Gram-Schmidt, weights
    cross       what two files say of one thing      contract   one document, or several together
    manifest    which files there are, and whose     folder     a whole folder: ``drillproof validate state``
"""

from harness.contracts.state_files.contract import Contract, together
from harness.contracts.state_files.finding import Finding
from harness.contracts.state_files.surfaces import read_surfaces

__all__ = ["Contract", "Finding", "read_surfaces", "together"]
