"""Names of the files that make up one version, in a job's folder and in the store."""

CERTIFICATE = "certificate.json"
UPLOAD = "upload"
SERVED = "served.onnx"
CONSTANTS = "constants"
PORTABLE = "certificate.safetensors"
"""The certificate as one file that can be proved again without this service."""
STATE = "state"
CALIBRATION = "calibration.npy"
"""Inputs that say which pairs of classes matter; never kept."""
CHECK = "check.json"
"""What a check found; never kept."""

BESIDE_THE_CERTIFICATE = (UPLOAD, SERVED, CONSTANTS, STATE, PORTABLE)
