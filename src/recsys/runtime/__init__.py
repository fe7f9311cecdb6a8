"""What machine this is and what may be used of it (devices, threads, memory, files); stops and retries of calls."""
