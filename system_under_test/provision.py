"""What an operator lays out before the trader starts: the certificate, and the confirmation of the policy.

The certificate is issued for the build, configuration and contract of the environment it is given, exactly those
that the trader will compute for itself; a certificate for anything else reads INVALID there. Every world calls
`files` before each start. By hand: ``python -m system_under_test.provision`` writes them into NODE_DATA/files.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from system_under_test.trader import certificate, refresher
from system_under_test.trader.settings import Settings, SettingsError


def files(environment: Mapping[str, str], wall_ms: int) -> dict[str, bytes]:
    """File name to bytes, as of a moment (Unix ms). Raises SettingsError where the trader would not start."""
    settings = Settings.load(environment)
    return {
        certificate.FILE: certificate.issue(
            settings.build_id, settings.runtime_config_hash, settings.contract_version, wall_ms,
            settings.f1_cert_freshness_window_s),
        refresher.FILE: refresher.result(settings.policy_version, settings.runtime_config_hash, wall_ms),
    }


def main() -> int:
    """Write the files into NODE_DATA/files. 0 done, 2 wrong set-up."""
    environment = dict(os.environ)  # ambient-ok: this is the command's own entry, not the machine
    data = environment.get("NODE_DATA")
    if not data:
        print("NODE_DATA is missing: the node's data folder", file=sys.stderr)
        return 2
    try:
        laid_out = files(environment, int(time.time() * 1_000))  # ambient-ok: issuing happens at the wall clock's now
    except SettingsError as why:
        print(f"nothing was laid out: {why}", file=sys.stderr)
        return 2
    folder = Path(data) / "files"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in laid_out.items():
        temporary = folder / f".{name}.new"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
        print(folder / name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
