"""What the deviations cost: the exact loss of a trained digits net pruned as the library does, minus as it says.

`python -m tests.interop.audit.consequences` prints the table of FINDINGS.md: one row for each deviation that changes
what is removed, one column for each sparsity. Both masks of a row are put on the same weights; a negative regret means
that the deviation prunes better here. Two numbers behind it are the units or weights that were removed and asked for.
Units are removed with all that feeds them, so that their output is 0.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pruning import masks
from pruning.compare import tables
from tests.interop.audit.subjects import (
    SPARSITIES,
    NotAudited,
    audited,
    backward,
    lowest_units,
    pruned_units,
    regret,
    regrets_of_units,
    trained,
    trained_case,
    unit_scores,
    without_units,
)

HIDDEN, CONVOLUTIONS = ("0", "2"), ("0", "3")


class Cost(NamedTuple):
    """A regret, and how much was removed by the library and as asked: units, or weights."""

    regret: float
    removed: int
    asked: int

    def __str__(self) -> str:
        return f"{self.regret:+.3f} ({self.removed}/{self.asked})"


HEADER = ("finding", "net", *(f"{p:.0%}" for p in SPARSITIES))


def hessian_of_the_last_example() -> list[float]:
    """P1: HessianImportance after accumulate_grad for each of 400 examples, beside the mean over all of them."""
    tp = audited("torch-pruning", "torch_pruning")
    model, x, y = trained("mlp")
    importance = tp.importance.HessianImportance(normalizer=None, group_reduction="first")
    ours = dict.fromkeys(HIDDEN, 0.0)
    for n in range(len(x)):
        backward(model, x[n : n + 1], y[n : n + 1])
        importance.accumulate_grad(model)
        for name in HIDDEN:
            ours[name] += _by_row(model, name, lambda w, g: w**2 * g**2)
    return regrets_of_units(trained_case("mlp"), unit_scores(tp, model, importance, HIDDEN, x), ours)


def hessian_without_accumulation() -> list[float]:
    """P2: HessianImportance after one backward pass of the mean loss, w² g, beside w² g² of all examples."""
    tp = audited("torch-pruning", "torch_pruning")
    model, x, y = trained("mlp")
    case = trained_case("mlp")
    backward(model, x, y)
    importance = tp.importance.HessianImportance(normalizer=None, group_reduction="first")
    theirs = unit_scores(tp, model, importance, HIDDEN, x)
    squares = case.scores("taylor_squared")
    return regrets_of_units(case, theirs, {name: squares[f"{name}.weight"].sum(axis=1) for name in HIDDEN})


def hessian_without_beta() -> list[float]:
    """P3: HessianImportance(bias=True) of batch norm, one batch, beside the same with beta."""
    tp = audited("torch-pruning", "torch_pruning")
    model, x, y = trained("cnn")
    backward(model, x, y)
    norm = type(model[1])
    importance = tp.importance.HessianImportance(normalizer=None, group_reduction="sum", bias=True, target_types=[norm])
    theirs = unit_scores(tp, model, importance, CONVOLUTIONS, x)
    ours = {}
    for name in CONVOLUTIONS:
        beta = model.get_submodule(f"{int(name) + 1}").bias
        ours[name] = theirs[name] + (beta.detach() ** 2 * beta.grad).numpy()
    return regrets_of_units(trained_case("cnn"), theirs, ours)


def taylor_without_norm() -> list[float]:
    """P4: TaylorImportance of a group, beside the same with its batch norm's gamma."""
    tp = audited("torch-pruning", "torch_pruning")
    model, x, y = trained("cnn")
    backward(model, x, y)
    importance = tp.importance.TaylorImportance(normalizer=None, group_reduction="sum")
    theirs = unit_scores(tp, model, importance, CONVOLUTIONS, x)
    ours = {}
    for name in CONVOLUTIONS:
        gamma = model.get_submodule(f"{int(name) + 1}").weight
        ours[name] = theirs[name] + np.abs((gamma.detach() * gamma.grad).numpy())
    return regrets_of_units(trained_case("cnn"), theirs, ours)


def taylor_of_absolute_values() -> list[float]:
    """P5: TaylorImportance of a layer's own weights, the sum of |g w|, beside the sum of (g w)² of the cited paper."""
    tp = audited("torch-pruning", "torch_pruning")
    model, x, y = trained("mlp")
    backward(model, x, y)
    importance = tp.importance.TaylorImportance(normalizer=None, group_reduction="first")
    ours = {name: _by_row(model, name, lambda w, g: (w * g) ** 2) for name in HIDDEN}
    return regrets_of_units(trained_case("mlp"), unit_scores(tp, model, importance, HIDDEN, x), ours)


def fpgm_of_squares() -> list[float]:
    """P6: FPGMImportance of the rows, beside the sum of their distances, within layers."""
    tp = audited("torch-pruning", "torch_pruning")
    model, x, _ = trained("mlp")
    importance = tp.importance.FPGMImportance(normalizer=None, group_reduction="first")
    ours = {}
    for name in HIDDEN:
        rows = model.get_submodule(name).weight.detach().numpy()
        ours[name] = np.linalg.norm(rows[:, None] - rows, axis=2).sum(axis=1)
    return regrets_of_units(trained_case("mlp"), unit_scores(tp, model, importance, HIDDEN, x), ours, local=True)


def squares_for_norms() -> list[float]:
    """P7: MagnitudeImportance() by default, ranked globally, beside group norms divided by their mean."""
    tp = audited("torch-pruning", "torch_pruning")
    model, x, _ = trained("mlp")
    theirs = unit_scores(tp, model, tp.importance.MagnitudeImportance(), HIDDEN, x)
    ours = {name: np.sqrt(scores) / np.sqrt(scores).mean() for name, scores in theirs.items()}
    return regrets_of_units(trained_case("mlp"), theirs, ours)


def maximum_behind_flatten() -> list[float]:
    """P8: MagnitudeImportance(group_reduction="max") behind Flatten, beside the maximum over all positions."""
    tp = audited("torch-pruning", "torch_pruning")
    model, x, _ = trained("cnn")
    importance = tp.importance.MagnitudeImportance(normalizer=None, group_reduction="max")
    theirs = unit_scores(tp, model, importance, ["3"], x)
    filters = (model[3].weight.detach().numpy() ** 2).sum(axis=(1, 2, 3))
    gamma = model[4].weight.detach().numpy() ** 2
    positions = (model[7].weight.detach().numpy() ** 2).sum(axis=0).reshape(8, 16)
    ours = {"3": np.maximum(np.maximum(filters, gamma), positions.max(axis=1))}
    return regrets_of_units(trained_case("cnn"), theirs, ours)


def ratios_of_ten_percent_steps() -> list[Cost]:
    """P9: BasePruner at pruning_ratio p within layers, beside the same order with the number rounded."""
    return _by_pruner("mlp", local=True)


def ratios_globally() -> list[Cost]:
    """P10: BasePruner(global_pruning=True) at pruning_ratio p, beside the same scores with as many removed as asked."""
    return _by_pruner("mlp", local=False, global_pruning=True)


def ratios_beyond_their_maximum() -> list[Cost]:
    """P11: BasePruner at pruning_ratio p with max_pruning_ratio 0.5, beside the same capped at a half."""
    return _by_pruner("mlp", local=True, most=0.5, max_pruning_ratio=0.5)


def multiples_rounded_down() -> list[Cost]:
    """P12: BasePruner at pruning_ratio p with round_to=8 within layers, beside the nearest multiple of 8 left."""
    return _by_pruner("mlp", local=True, multiple=8, round_to=8)


def absolute_importance_scores() -> list[float]:
    """T1: global_unstructured by L1Unstructured with exact saliencies as importance_scores, beside their own order."""
    torch, prune = audited("torch", "torch"), audited("torch", "torch.nn.utils.prune")
    case, found = trained_case("mlp"), []
    scores = case.exact()
    for p in SPARSITIES:
        model, _, _ = trained("mlp")
        importance = {(model[i], "weight"): torch.tensor(scores[f"{i}.weight"]) for i in (0, 2, 4)}
        k = masks.count(p, sum(value.numel() for value in importance.values()))
        prune.global_unstructured(list(importance), prune.L1Unstructured, importance_scores=importance, amount=k)
        theirs = case.mask_of({f"{i}.weight": model[i].weight_mask for i in (0, 2, 4)})
        ours, _ = case.to_ours(scores)
        found.append(regret(case, theirs, masks.smallest(ours, p, among=case.L.network.layout.select("weight"))))
    return found


def blocks_at_the_edge() -> list[float]:
    """A1: WeightNormSparsifier of blocks (1, 8) on the last layer, 20 inputs wide, beside the blocks' norms."""
    place = audited("torch", "torch.ao.pruning")
    case, found = trained_case("mlp"), []
    for p in SPARSITIES:
        model, _, _ = trained("mlp")
        norms = np.array([np.linalg.norm(model[4].weight.detach()[:, s : s + 8], axis=1) for s in (0, 8, 16)]).T
        ours = np.repeat(masks.smallest(norms.ravel(), p).reshape(norms.shape), [8, 8, 4], axis=1)
        sparsifier = place.WeightNormSparsifier(p, (1, 8))
        sparsifier.prepare(model, [{"tensor_fqn": "4.weight"}])
        sparsifier.step()
        theirs = model[4].parametrizations.weight[0].mask
        found.append(regret(case, *(case.mask_of({"4.weight": mask}) for mask in (theirs, ours))))
    return found


def wanda_of_squared_norms() -> list[float]:
    """O1: WandaSparsifier on every layer, beside |W| ‖X‖₂ across the layer."""
    return _wanda(lambda scores: np.full(scores.shape, 0))


def wanda_across_the_layer() -> list[float]:
    """Choice: WandaSparsifier on every layer, beside |W| ‖X‖₂ within every output, as the paper has it."""
    return _wanda(lambda scores: np.indices(scores.shape)[0])


def wanda_in_two_steps() -> list[Cost]:
    """O2: a step of WandaSparsifier after each half of the images, beside one step after all of them."""
    case, found = trained_case("mlp"), []
    for p in SPARSITIES:
        theirs, ours = (
            case.mask_of(_wanda_masks(p, parts)) for parts in ([slice(0, 200), slice(200, None)], [slice(None)])
        )
        found.append(Cost(regret(case, theirs, ours), int((~theirs).sum()), int((~ours).sum())))
    return found


def rows_of_unequal_length() -> list[Cost]:
    """N1: L1NormPruner, both hidden layers in one global group, beside the lowest rows that hold the share asked."""
    pruning = audited("nni", "nni.compression.pruning")
    found = []
    for p in SPARSITIES:
        model, _, _ = trained("mlp")
        norms = {name: _by_row(model, name, lambda w, _: np.abs(w)) for name in ("2", "0")}
        options = {"op_names": list(norms), "target_names": ["weight"], "sparse_ratio": p, "global_group_id": "all"}
        pruner = pruning.L1NormPruner(model, [options])
        pruner._target_spaces = {name: pruner._target_spaces[name] for name in norms}
        _, made = pruner.compress()
        theirs = {name: np.flatnonzero(made[name]["weight"].numpy()[:, 0] == 0).tolist() for name in norms}
        lengths = {"0": 64, "2": 24}
        ours = _rows_that_hold(norms, lengths, p)
        removed, asked = (sum(lengths[name] * len(gone[name]) for name in norms) for gone in (theirs, ours))
        found.append(Cost(_regret_of_units(theirs, ours), removed, asked))
    return found


def movement_by_adam() -> list[float]:
    """N2: MovementPruner's scores over 40 batches of 10 at fixed weights, beside −Σ w g over the same batches."""
    torch, nni = audited("torch", "torch"), audited("nni", "nni")
    pruning, utils = audited("nni", "nni.compression.pruning"), audited("nni", "nni.compression.utils")
    model, x, y = trained("mlp")
    names = {f"{i}.weight": f"{i}" for i in (0, 2, 4)}

    def train(model, optimizer, training_step, lr_scheduler=None, max_steps=None, max_epochs=None):
        for step in range(max_steps):
            optimizer.zero_grad()
            part = slice(10 * step, 10 * step + 10)
            training_step((x[part], y[part]), model).backward()
            optimizer.step()

    optimizer = nni.trace(torch.optim.SGD)(model.parameters(), lr=0.0)
    loss = torch.nn.functional.cross_entropy
    evaluator = utils.TorchEvaluator(train, optimizer, lambda batch, model: loss(model(batch[0]), batch[1]))
    options = {"op_names": list(names.values()), "target_names": ["weight"], "sparse_ratio": 0.5, "granularity": [1, 1]}
    pruner = pruning.MovementPruner(model, [options], evaluator, 39, 40)
    pruner.compress(40, None)
    case = trained_case("mlp")
    theirs, _ = case.to_ours({name: pruner.scores[key]["weight"].detach() for name, key in names.items()})
    said, _ = case.to_ours(case.scores("taylor_signed"))
    weights = case.L.network.layout.select("weight")
    return [regret(case, *(masks.smallest(s, p, among=weights) for s in (theirs, said))) for p in SPARSITIES]


#: the finding in FINDINGS.md, the net, and how its regrets are measured
ROWS: tuple[tuple[str, str, Callable[[], list[float] | list[Cost]]], ...] = (
    ("T1", "mlp", absolute_importance_scores),
    ("A1", "mlp", blocks_at_the_edge),
    ("O1", "mlp", wanda_of_squared_norms),
    ("O2", "mlp", wanda_in_two_steps),
    ("P1", "mlp", hessian_of_the_last_example),
    ("P2", "mlp", hessian_without_accumulation),
    ("P3", "cnn", hessian_without_beta),
    ("P4", "cnn", taylor_without_norm),
    ("P5", "mlp", taylor_of_absolute_values),
    ("P6", "mlp", fpgm_of_squares),
    ("P7", "mlp", squares_for_norms),
    ("P8", "cnn", maximum_behind_flatten),
    ("P9", "mlp", ratios_of_ten_percent_steps),
    ("P10", "mlp", ratios_globally),
    ("P11", "mlp", ratios_beyond_their_maximum),
    ("P12", "mlp", multiples_rounded_down),
    ("N1", "mlp", rows_of_unequal_length),
    ("N2", "mlp", movement_by_adam),
    ("choice: Wanda's scope", "mlp", wanda_across_the_layer),
)


def _by_row(model, name, value):
    """Return the sum over every row of a layer's weights of value(w, g)."""
    weight = model.get_submodule(name).weight
    g = np.zeros(weight.shape) if weight.grad is None else weight.grad.numpy()
    return value(weight.detach().numpy(), g).sum(axis=1)


def _own_squares(tp):
    return tp.importance.MagnitudeImportance(normalizer=None, group_reduction="first")


def _regret_of_units(theirs, ours) -> float:
    case = trained_case("mlp")
    return regret(case, without_units(case, theirs), without_units(case, ours))


def _by_pruner(kind: str, *, local: bool, most: float = 1.0, multiple: int = 1, **options) -> list[Cost]:
    tp = audited("torch-pruning", "torch_pruning")
    found = []
    for p in SPARSITIES:
        model, x, _ = trained(kind)
        pruned = copy.deepcopy(model)
        tp.pruner.BasePruner(
            pruned, x[:2], _own_squares(tp), pruning_ratio=p, ignored_layers=[pruned[4]], **options
        ).step()
        scores = {name: _by_row(model, name, lambda w, _: w**2) for name in HIDDEN}
        ours = lowest_units(scores, min(p, most), local)
        if multiple > 1:
            ours = {name: _nearest_multiple(scores[name], len(gone), multiple) for name, gone in ours.items()}
        theirs = pruned_units(model, pruned, HIDDEN)
        removed, asked = (sum(map(len, gone.values())) for gone in (theirs, ours))
        found.append(Cost(_regret_of_units(theirs, ours), removed, asked))
    return found


def _nearest_multiple(scores: np.ndarray, removed: int, multiple: int) -> list[int]:
    """Return the lowest units, as many as leave the nearest positive multiple."""
    left = max(multiple, multiple * int((len(scores) - removed) / multiple + 0.5))
    return np.argsort(scores, kind="stable")[: max(0, len(scores) - left)].tolist()


def _rows_that_hold(norms, lengths, sparsity) -> dict[str, list[int]]:
    """Return the lowest rows, by layer, as many as hold no more than this share of all weights."""
    rows = sorted((value, name, i) for name, own in norms.items() for i, value in enumerate(own))
    room = sparsity * sum(lengths[name] * len(own) for name, own in norms.items())
    gone: dict[str, list[int]] = {name: [] for name in norms}
    for _, name, i in rows:
        room -= lengths[name]
        if room < 0:
            break
        gone[name].append(i)
    return gone


def _wanda_masks(sparsity: float, parts: list[slice]) -> dict[str, np.ndarray]:
    wanda = audited("torchao", "torchao.sparsity").WandaSparsifier
    model, x, _ = trained("mlp")
    sparsifier = wanda(sparsity)
    sparsifier.prepare(model, [{"tensor_fqn": f"{i}.weight"} for i in (0, 2, 4)])
    for part in parts:
        model(x[part])
        sparsifier.step()
    return {f"{i}.weight": model[i].parametrizations.weight[0].mask.numpy() for i in (0, 2, 4)}


def _wanda(groups: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    case, found = trained_case("mlp"), []
    scores = {name: s for name, s in case.scores("wanda").items() if name.endswith("weight")}
    for p in SPARSITIES:
        ours = {
            name: masks.smallest(s.ravel(), p, groups=groups(s).ravel()).reshape(s.shape) for name, s in scores.items()
        }
        theirs = case.mask_of(_wanda_masks(p, [slice(None)]))
        found.append(regret(case, theirs, case.mask_of(ours)))
    return found


def _cell(value: float | Cost) -> str:
    return str(value) if isinstance(value, Cost) else f"{value:+.3f}"


def measured() -> list[tuple[str, ...]]:
    """Return the rows of the table, as text, "not installed" where the library is not the audited one."""
    lines = []
    for finding, kind, measure in ROWS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                lines.append((finding, kind, *map(_cell, measure())))
        except NotAudited as reason:
            lines.append((finding, kind, str(reason), *[""] * 4))
    return lines


def main() -> None:
    """Print the losses of the two nets and the table."""
    for kind in ("mlp", "cnn"):
        case = trained_case(kind)
        accuracy = np.mean(case.L.network.forward(case.w, case.L.x).argmax(axis=1) == case.L.y)
        print(f"{kind}: loss {case.L(case.w):.3f}, accuracy {accuracy:.1%}, {len(case.w)} parameters")
    print(tables.aligned([HEADER, *measured()]))


if __name__ == "__main__":
    main()
