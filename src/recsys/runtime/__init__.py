"""What machine this is, what may be used of it (devices, threads, memory, files), and how calls are stopped or retried."""
