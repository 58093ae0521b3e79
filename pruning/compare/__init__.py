"""How far scores are from the truth: ranks, signs, calibration, the losses of their masks, and the parts of regret."""

from pruning.compare.boards import Row, Scoreboard, SetMethod, scoreboard
from pruning.compare.calibrations import Calibration, calibration
from pruning.compare.candidates import live, regret
from pruning.compare.frontiers import Prices, prices
from pruning.compare.greedy import Greedy, exact_greedy
from pruning.compare.halves import HalfAgreement, half_against_half
from pruning.compare.ranks import kendall, overlap, sign_agreement, spearman
from pruning.compare.reports import Judged, Report, report

__all__ = [
    "Calibration",
    "Greedy",
    "HalfAgreement",
    "Judged",
    "Prices",
    "Report",
    "Row",
    "Scoreboard",
    "SetMethod",
    "calibration",
    "exact_greedy",
    "half_against_half",
    "kendall",
    "live",
    "overlap",
    "prices",
    "regret",
    "report",
    "scoreboard",
    "sign_agreement",
    "spearman",
]
