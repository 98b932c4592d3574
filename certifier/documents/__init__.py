"""The answers of the library as validated documents: what `POST /certify` returns and `certify --json` prints.

One definition serves the library, the command line and the HTTP schema, so that they cannot drift apart.
All distances are L2 norms in the units of the caller's inputs; every `…_upper` is rounded up, every `…_lower` and
every radius down.
"""

from certifier.documents.answers import (
    Comparisons,
    OutputBounds,
    OutputComparison,
    OutputInterval,
    Predictions,
    RowComparison,
    RowPrediction,
)
from certifier.documents.certificate import (
    REAL_ARITHMETIC,
    Arithmetic,
    Certificate,
    EngineDescription,
    FixedInput,
    LayerReport,
    LipschitzBound,
    MethodReport,
    ModelDescription,
    SelfTest,
    SelfTestCheck,
    TensorDescription,
)
from certifier.documents.options import CertifyOptions, FixedValue, InputBox, NestedNumbers, Preprocessing
from certifier.documents.support import ModelCheck, OperatorSupport, OperatorUse, Refusal
from certifier.documents.words import (
    ArithmeticName,
    AskedArithmetic,
    Document,
    Finite,
    Layout,
    Method,
    ModelFormat,
    Positive,
    RadiusMethod,
    RungName,
    Task,
)

__all__ = [
    "REAL_ARITHMETIC",
    "Arithmetic",
    "ArithmeticName",
    "AskedArithmetic",
    "Certificate",
    "CertifyOptions",
    "Comparisons",
    "Document",
    "EngineDescription",
    "Finite",
    "FixedInput",
    "FixedValue",
    "InputBox",
    "LayerReport",
    "Layout",
    "LipschitzBound",
    "Method",
    "MethodReport",
    "ModelCheck",
    "ModelDescription",
    "ModelFormat",
    "NestedNumbers",
    "OperatorSupport",
    "OperatorUse",
    "OutputBounds",
    "OutputComparison",
    "OutputInterval",
    "Positive",
    "Predictions",
    "Preprocessing",
    "RadiusMethod",
    "Refusal",
    "RowComparison",
    "RowPrediction",
    "RungName",
    "SelfTest",
    "SelfTestCheck",
    "Task",
    "TensorDescription",
]
