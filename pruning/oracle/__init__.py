"""An oracle for other implementations: hand it your model and your scores, and it says what they are.

case = oracle.from_torch(model, loss, x, y)       # or from_arrays, from_onnx
print(case.diagnose(scores, claims="fisher"))
case.assert_matches(scores, "fisher")

Where there is no model to import, vectors are cases with the scores that are right for them, as files:

oracle.load("v1/tanh.fisher").assert_matches(scores)
"""

from pruning.oracle.cases import Case, Tensor
from pruning.oracle.descriptions import describe, from_arrays
from pruning.oracle.diagnosis import Diagnosis
from pruning.oracle.mask_diagnosis import MaskDiagnosis
from pruning.oracle.onnx_models import from_onnx
from pruning.oracle.torch_models import from_torch
from pruning.oracle.vector_files import Vector, load, vector_names
from pruning.oracle.verification import Verdict, verify

__all__ = [
    "Case",
    "Diagnosis",
    "MaskDiagnosis",
    "Tensor",
    "Vector",
    "Verdict",
    "describe",
    "from_arrays",
    "from_onnx",
    "from_torch",
    "load",
    "vector_names",
    "verify",
]
