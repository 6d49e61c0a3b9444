"""The contract that the coordinator and the hospitals agree on; touches no notes, opens no socket."""
