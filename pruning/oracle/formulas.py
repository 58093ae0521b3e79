"""What every criterion of the vectors is: its formula in words and in plain letters, its paper, what decides ties."""

from __future__ import annotations

from dataclasses import dataclass

REDUCTION = "mean over the N examples, plus (l2/2) sum_j w[j]^2"
_NO_TIES = "none needed: the score of a weight depends on no order"


@dataclass(frozen=True)
class Formula:
    """A criterion in words, in ASCII mathematics, its source, which Fisher matrix it holds and what decides ties."""

    words: str
    math: str
    paper: str
    fisher: str = "none"
    damping: str = "none"
    ties: str = _NO_TIES


_PATHS = "R = sum of the outputs for one input of ones when every weight is |w|, every bias and shift 0 and every "
_SET = "the order of removal does not matter, and no other set comes within a thousandth of the least"
_FISHER = "F[j,j] = (1/N) sum_n E[(dl_n/dw[j])^2], labels of l_n drawn from the model's own distribution given x_n"

FORMULAS = {
    "exact": Formula(
        "the exact rise of the loss when weight j alone is set to 0; negative where removal helps",
        "L(w with w[j] = 0) - L(w)",
        "the definition of saliency; LeCun, Denker and Solla 1990 approximate it",
    ),
    "magnitude": Formula("the absolute value of the weight", "|w[j]|", "Han et al. 2015, arXiv:1506.02626"),
    "magnitude_scaled": Formula(
        "the absolute value over the standard deviation (about the mean, with 1/n) of the weight's own tensor",
        "|w[j]| / sqrt((1/n) sum_k (w[k] - mean)^2), k over the n entries of the tensor",
        "Han et al. 2015, arXiv:1506.02626",
    ),
    "lamp": Formula(
        "the square over the sum of the squares that are not smaller in the weight's own tensor, itself included",
        "w[j]^2 / sum_k w[k]^2, k over j and what comes after it in its tensor's ascending order by w^2",
        "Lee et al. 2021, arXiv:2010.07611",
        ties="equal squares are in the order of the tensor's entries, row-major in the axes of layout minimal_nn",
    ),
    "taylor_signed": Formula(
        "minus gradient times weight: the first-order rise of the loss when the weight goes, with its sign",
        "-g[j] w[j]",
        "Mozer and Smolensky 1989, there for units",
    ),
    "taylor": Formula(
        "the absolute value of gradient times weight, the gradient averaged over the examples first",
        "|g[j] w[j]|",
        "Molchanov et al. 2017, arXiv:1611.06440, there for feature maps",
    ),
    "taylor_squared": Formula(
        "the mean over examples of the square of gradient times weight: squared for every example, then averaged",
        "(1/N) sum_n (g_n[j] w[j])^2",
        "Molchanov et al. 2019, arXiv:1906.10771, equation 8, for single weights",
    ),
    "movement": Formula(
        "minus the sum over the steps of a training of gradient times weight, both at that step",
        "-sum_t g(w_t)[j] w_t[j], w_t the rows of the tensors trajectory.*",
        "Sanh, Wolf and Rush 2020, arXiv:2005.07683, without the learning rate",
    ),
    "taylor_second": Formula(
        "the rise of the loss to second order when weight j alone goes",
        "-g[j] w[j] + (1/2) H[j,j] w[j]^2",
        "Taylor's expansion; LeCun, Denker and Solla 1990 before they drop the first term",
    ),
    "obd": Formula(
        "half the diagonal entry of the Hessian times the squared weight; the diagonal exact, negative entries kept",
        "(1/2) H[j,j] w[j]^2",
        "LeCun, Denker and Solla 1990, Optimal Brain Damage",
    ),
    "obd_recursive": Formula(
        "as obd, with the second derivatives by two different units of a layer dropped on the way back",
        "(1/2) (h[j] + l2) w[j]^2; h of the outputs = d2l/dz_c^2; through an activation y = f(a): "
        "h_a = f'(a)^2 h_y + f''(a) dl/dy; through y = x W + b: h of W[a,b] = x_a^2 h_b, h of b = h_b, "
        "h of x_a = sum_b W[a,b]^2 h_b; h is the mean over the examples",
        "LeCun, Denker and Solla 1990, their recursion",
    ),
    "obs": Formula(
        "the rise of the quadratic model when weight j goes and all others move to make up for it",
        "w[j]^2 / (2 A[j,j]), A = inverse of (H + damping I)",
        "Hassibi and Stork 1993, equation 5",
        damping="damping I is added to H before it is inverted",
    ),
    "obs_gradient": Formula(
        "as obs, with the linear term of the model kept: right away from a minimum too",
        "(w[j] - (A g)[j])^2 / (2 A[j,j]) - (1/2) g' A g, A = inverse of (H + damping I)",
        "Hassibi and Stork 1993, with the gradient that they drop",
        damping="damping I is added to H before it is inverted",
    ),
    "obs_layerwise": Formula(
        "obs for the squared error of the layer's own linear map on its inputs, without labels",
        "W[i,o]^2 / (2 A[i,i]), A = inverse of (X' X / N + damping I), X the inputs of the layer as rows, with a "
        "column of ones for the bias; of a convolution every window of every image is a row, and N still counts images",
        "Dong et al. 2017, arXiv:1705.07565",
        damping="damping I is added to X' X / N before it is inverted",
    ),
    "fisher": Formula(
        "half the diagonal entry of the true Fisher matrix times the squared weight, labels averaged exactly",
        f"(1/2) F[j,j] w[j]^2, {_FISHER}; for squared error targets are normal around z with variance 1; "
        "with a scale s of the loss, F is s times that of the loss of scale 1",
        "Theis et al. 2018, arXiv:1801.05787, as they name it",
        fisher="true",
    ),
    "fisher_empirical": Formula(
        "half the mean over examples of the squared gradient, with the labels of the data, times the squared weight",
        "(1/2) w[j]^2 (1/N) sum_n g_n[j]^2",
        "Theis et al. 2018, arXiv:1801.05787, as they compute it",
        fisher="empirical",
    ),
    "woodfisher": Formula(
        "obs with the empirical Fisher matrix in the Hessian's place, all weights in one block",
        "w[j]^2 / (2 A[j,j]), A = inverse of (damping I + (1/N) sum_n g_n g_n')",
        "Singh and Alistarh 2020, arXiv:2004.14340",
        fisher="empirical",
        damping="damping I is added to the empirical Fisher matrix before it is inverted",
    ),
    "snip": Formula(
        "the absolute value of gradient times weight over its sum over all weights and biases",
        "|g[j] w[j]| / sum_k |g[k] w[k]|",
        "Lee, Ajanthan and Torr 2019, arXiv:1810.02340",
    ),
    "grasp": Formula(
        "weight times the product of Hessian and gradient; the paper's score with the opposite sign",
        "w[j] (H g)[j]",
        "Wang, Zhang and Grosse 2020, arXiv:2002.07376, without the temperature",
    ),
    "synflow": Formula(
        "the absolute paths through the weight, without data; biases and shifts score 0",
        f"|w[j] dR/dw[j]|, {_PATHS}activation the identity; batch norm times |gamma| / sqrt(variance + epsilon)",
        "Tanaka et al. 2020, arXiv:2006.05467",
    ),
    "wanda": Formula(
        "the absolute value of the weight times the Euclidean norm of its input over all examples, a sum, not a mean",
        "|W[i,o]| sqrt(sum_n x_n[i]^2), 1 being the input of a bias; of a convolution the sum is over every window of "
        "every image",
        "Sun et al. 2023, arXiv:2306.11695",
    ),
    "combinatorial": Formula(
        "the set S of k weights, biases included, that raises the second-order model of the loss least: 0 on S, "
        "1 elsewhere",
        "S minimises -sum_S g[j] w[j] + (1/2) sum_S sum_S w[i] H[i,j] w[j]",
        "Yu et al. 2022, arXiv:2203.04466, with the Hessian in the empirical Fisher's place",
        ties=_SET,
    ),
}
