"""An oracle for other implementations: hand it your model and your scores, and it says what they are.

case = oracle.from_torch(model, loss, x, y)       # or from_arrays, from_onnx
print(case.diagnose(scores, claims="fisher"))
case.assert_matches(scores, "fisher")
"""

from pruning.oracle.cases import Case, Tensor
from pruning.oracle.descriptions import describe, from_arrays
from pruning.oracle.diagnosis import Diagnosis
from pruning.oracle.mask_diagnosis import MaskDiagnosis
from pruning.oracle.onnx_models import from_onnx
from pruning.oracle.torch_models import from_torch

__all__ = ["Case", "Diagnosis", "MaskDiagnosis", "Tensor", "describe", "from_arrays", "from_onnx", "from_torch"]
