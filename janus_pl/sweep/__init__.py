"""`python -m janus_pl sweep`: the runs of a W&B sweep file on this machine, without an account."""
