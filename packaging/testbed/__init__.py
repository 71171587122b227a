"""Real systemd nodes on one machine: a fleet to try things on before touching a roof. See README.md."""
