"""Bytes -> graph.  Only this package imports onnx, and nothing here runs what it reads."""
