"""The room of MLflow's model registry: versions, their measures, and which one is in Production."""
