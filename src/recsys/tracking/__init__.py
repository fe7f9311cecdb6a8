"""The room of MLflow tracking."""
