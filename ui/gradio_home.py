"""What Gradio reads when it is imported, so this comes first: a cache that goes with the process,
and no reports to its makers."""

import os
import tempfile

CACHE = tempfile.TemporaryDirectory(prefix="ramole-page-")
os.environ.setdefault("GRADIO_TEMP_DIR", CACHE.name)
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
