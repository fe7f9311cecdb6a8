"""What the tests share: sample data, stores, servers."""
