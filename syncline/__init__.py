"""syncline: when every pixel was exposed, how sure of it, and better models because of it.

`ORT_DISABLE_TELEMETRY` is set here, before anything can import onnxruntime: wheels from 1.29 on
resolve a vendor's host ten seconds after import, and the run-time switch does not stop it.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
