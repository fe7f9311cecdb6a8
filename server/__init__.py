"""The team's server: what docker-compose.yml and `make server` run, and how it is backed up, moved and upgraded."""
