"""Names of the files that make up one version, in a job's folder and in the store."""

CERTIFICATE = "certificate.json"
UPLOAD = "upload"
SERVED = "served.onnx"
CONSTANTS = "constants"
STATE = "state"
CHECK = "check.json"
"""What a check found; never kept."""

BESIDE_THE_CERTIFICATE = (UPLOAD, SERVED, CONSTANTS, STATE)
