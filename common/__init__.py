"""The contract that the coordinator and the hospitals agree on; touches no notes, opens no socket."""

import os

# Every process of Fednotes imports this package before any library that reads these. None of them calls home; and
# threads that wait give their core away, for on a busy machine spinning made a training step four times as slow.
for _name, _value in {
    "OMP_WAIT_POLICY": "PASSIVE",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)
