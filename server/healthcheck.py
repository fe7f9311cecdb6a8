"""Exit with 0 if the tracking server answers: the one at the address given, else the one of this container."""

import os
import sys
from urllib.error import URLError
from urllib.request import urlopen

address = sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}"
try:
    with urlopen(f"{address.rstrip('/')}/health", timeout=4) as answer:
        answer.read()
except (URLError, OSError) as error:
    sys.exit(f"{address} does not answer: {error}")
