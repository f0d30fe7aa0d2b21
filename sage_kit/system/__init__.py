"""The machine: devices, the processes of a run, and child processes."""
