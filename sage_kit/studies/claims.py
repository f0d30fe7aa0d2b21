"""What the paper says, which study tests it, and what the studies ask beyond that: the claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sage_kit.config import PRESETS
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies.sizes import GLUE

Kind = Literal["score", "comparison", "question"]

PAPER_TEACHERS = ("bert-base-uncased", "google-bert/bert-base-uncased")

PAPER_TASKS = tuple(task for task in GLUE if task != "wnli")
"""GLUE as it is usually averaged; which tasks the paper's average holds is not stated."""

PAPER: Mapping[str, Any] = PRESETS["paper"]  # the paper's setting, as close as its text allows

MODELS = ("teacher", "bypass", "granularity", "student_layers", "warmup_corpus", "warmup_epochs", "warmup_rows")

SYNTHESIS = ("schedule", "mix", "synthetic_ratio", "losses_from", "reducer", "n_components", "refit", "sampler",
             "sampler_options", "inverter", "lift", "filter")  # fmt: skip

LENGTH = ("rounds", "stop_rule", "stop_agreement", "stop_on")
"""Settings of `PAPER` that a claim may depend on: models, synthesis, and when a run ends. Studies compare arms at equal
steps by design, so `LENGTH` counts for a claim about the length alone."""

MARGIN = 0.0025
"""What a way that "keeps" or "suffices" may lose of a score: half of the 0.5 points that the paper's ablation credits
its synthesis with (78.6 against 78.1), so that whoever loses less keeps at least half of what the method is said to
bring."""

TITLE = "Synthetic Adaptive Guided Embeddings (SAGE), arXiv 2508.14783"


@dataclass(frozen=True)
class Claim:
    """Something the paper says, or asks, and the finding that tests it."""

    id: str  # what a finding names in its `claim`
    statement: str  # the claim, or the question, in one sentence that yes answers
    paper_value: str  # the paper's number as text; "" where it gives none
    source: str  # section, table or part of the paper
    study: str  # name of the notebook without its ending
    finding: str  # name of its finding
    # an absolute number, or a difference or a property: either is held against the
    # paper's in its own setting only; or a question that the paper leaves open, which is answered wherever it is asked
    kind: Kind
    note: str = ""  # how the claim was read where the paper leaves room
    task: str = ""  # for a claim about one task, its name; "" else
    # what the finding must be held against, in the finding's unit; NaN where the study chooses it
    threshold: float = math.nan
    also: tuple[str, ...] = ()  # further findings of the study, all of which must be yes as well
    # settings of `PAPER` that an arm must have, to be the paper's as far as this claim goes
    depends: tuple[str, ...] = (*MODELS, *SYNTHESIS)
    arm: str = ""  # the arm that stands for the paper's method; "" for the one that the finding's row names
    average: bool = False  # whether the paper's number is an average over GLUE, so that it takes all of `PAPER_TASKS`

    @property
    def is_question(self) -> bool:
        """Whether the paper leaves it open."""
        return self.kind == "question"


def _score(task: str, name: str, value: float, metric: str, error: float) -> Claim:
    """A score on one task: reproduced when ours is not below the paper's by more than its own sampling error."""
    note = (
        f"Split and seeds are not stated; read as at least the published score less {100 * error:.1f} points, one "
        "standard error of a single development set of that size."
    )
    says = f"{100 * value:.1f} ({value:.3f} {metric})"
    return Claim(
        f"score_{task}", f"The student reaches {100 * value:.1f} on {name}.", says, "main results on GLUE", "09_glue",
        f"score_{task}", "score", note, task, round(value - error, 4),
    )  # fmt: skip


def _question(
    id: str, statement: str, source: str, study: str, finding: str, note: str = "", *, also: tuple[str, ...] = ()
) -> Claim:
    return Claim(id, statement, "", source, study, finding, "question", note, also=also)


AIM = "the aim of this toolkit"
INVERSION = ("teacher", "bypass", "granularity", "n_components", "reducer", "inverter")

CLAIMS: tuple[Claim, ...] = (
    _score("qnli", "QNLI", 0.912, "accuracy", 0.0038),
    _score("sst2", "SST-2", 0.923, "accuracy", 0.009),
    _score("cola", "CoLA", 0.415, "Matthews' correlation", 0.026),
    _score("rte", "RTE", 0.685, "accuracy", 0.028),
    Claim(
        "ablation", "Synthesis through a 2-D UMAP beats training without it.", "78.6 against 78.1, average over GLUE",
        "Table 3", "01_reducer_dimension", "umap2_over_none", "comparison",
        "The paper's difference, 0.5 points, is about one standard error of such an average; ours is paired by seed "
        "and example, at equal steps.",
        average=True,
    ),
    Claim(
        "dimension", "A 2-D UMAP does better than an 8-D one.", "78.6 for 2-D",
        "Table 3", "01_reducer_dimension", "umap2_over_umap8", "comparison",
        "The summary at hand names the arm and not its score.",
        average=True,
    ),
    Claim(
        "inversion_cosine", "Vectors inverted from the 2-D UMAP have a cosine of 0.34 to their originals.", "0.34",
        "Section 3.3", "05_reducers", "umap_inversion_cosine", "score",
        "Read as at least that faithful, on held-out vectors, less the rounding of two digits.",
        threshold=0.335, depends=INVERSION,
    ),
    Claim(
        "inversion_mse", "Vectors inverted from the 2-D UMAP have a mean squared error of 0.34.", "0.34",
        "Section 3.3", "05_reducers", "umap_inversion_mse", "score",
        "Read as at most that error, on held-out vectors, plus the rounding of two digits; it depends on the vectors' "
        "scale.",
        threshold=0.345, depends=INVERSION,
    ),
    Claim(
        "ten_epochs", "The student agrees with the teacher on 99 % of the data after fewer than ten epochs.",
        "fewer than 10 epochs at 99 %", "Section 3.4", "04_static_or_adaptive", "rounds_to_agreement", "comparison",
        "An epoch is a round. The paper calls it typical, so more than half of the runs on a task must get there in "
        "time; of a run that does not, nobody knows how many rounds it needs.",
        threshold=0.5, depends=(*MODELS, *SYNTHESIS, *LENGTH),
    ),
    Claim(
        "bypass_cheaper", "Bypassing the teacher's input layer makes distillation cheaper.", "",
        "abstract; Section 3.1", "02_input_layer", "bypass_cheaper", "comparison",
        "The paper says so without measuring it.",
        depends=MODELS,
    ),
    Claim(
        "bypass_preserves", "Bypassing the teacher's input layer keeps what the student learns.", "",
        "abstract; Section 3.1", "02_input_layer", "bypass_preserves", "comparison",
        "The paper says so without measuring it; held against a margin that the study states.",
        depends=MODELS,
    ),
    Claim(
        "regions_move", "The regions of high loss move from epoch to epoch, so a curriculum has something to follow.",
        "", "Section 3.4", "03_loss_profile", "hard_sets_move", "comparison",
        "Assumed by the paper; held against how much such regions differ between seeds of the reducer alone. Whether "
        "they move more than from student to student is a further finding of the study.",
        arm="adaptive",
    ),
    Claim(
        "adaptive", "New synthetic data every epoch beats synthetic data made once.", "",
        "Section 3.4; Table 3", "04_static_or_adaptive", "adaptive_over_static", "comparison",
    ),
    Claim(
        "region", "It is the region of high loss that helps, not only more data.", "",
        "abstract; Section 3.3", "10_is_it_the_region", "high_over_random", "comparison",
        "Against the same synthesis around examples drawn at random.",
    ),
    Claim(
        "replacing", "Replacing the data each epoch suffices: no more examples are needed than without synthesis.",
        "fewer epochs than baselines",
        "abstract; Section 3.4", "11_replace_or_add", "replacing_suffices", "comparison",
        "Against adding the synthetic examples to the real ones, in score and in agreement with the teacher, by no "
        "more than a margin that the study states; and in fewer rounds than plain distillation needs.",
        also=("replacing_keeps_agreement", "replacing_needs_fewer_rounds"),
    ),
    _question(
        "language", "Do synthetic vectors correspond to language?",
        "Section 7, limitations: approximate inversion", "06_decode_tokens", "synthetic_nearer_real",
        "Whether a decoder reads them as it reads real text rather than as noise of the same norm, with lift shift, "
        "which moves token states as far as the vector. Lift replace puts real tokens in, so its yes is no surprise.",
    ),
    _question(
        "coherence", "Does dropping incoherent synthetic examples help?",
        "Section 7, limitations: approximate inversion", "07_coherence_filter", "coherent_over_incoherent",
    ),
    _question(
        "other_reducers", "Do other reducers keep more of the meaning than UMAP?",
        "Section 7, limitations: lossy dimensionality reduction", "05_reducers", "other_over_umap",
    ),
    _question(
        "beyond_glue", "Does the method help beyond GLUE: multi-hop reasoning, other languages?",
        "Section 7, limitations: generalisation beyond GLUE", "08_beyond_glue", "gain_beyond_glue",
    ),
    _question(
        "default_over_plain",
        "Does the preset default beat plain distillation at equal steps on official validation sets?",
        f"{AIM}; the paper has no such arm", "09_glue", "default_over_plain",
        "The preset was chosen on parts carved from train.",
    ),
    _question(
        "default_over_controls", "Is the preset default closer to its teacher than every control?",
        f"{AIM}; the paper has no such arm", "16_controls", "closest_control_divergence",
        "Against the control that comes nearest, picked by the divergence that it is compared on, which favours it.",
    ),
    _question(
        "warm_up", "Is a student better behind a warm-up on generic text than plain distillation for the same FLOPs?",
        "method summary; the paper has no run without it", "13_warm_up", "warm_over_equal_flops",
    ),
    _question(
        "few_texts", "Does the preset default beat plain distillation where texts are fewest?",
        f"{AIM}; the paper distils on whole tasks", "14_data_efficiency", "gain_with_fewest_texts",
        "At profiles small and medium the fewest are 250.",
    ),
    _question(
        "deeper_bypass", "Is a bypass of the first block better than that of the embeddings, at equal depth?",
        "Section 3.1: the paper bypasses the input layer alone", "15_equal_cost_bypass", "deeper_bypass",
        "With the preset default on either side.",
    ),
    _question(
        "further_loss", "Does a further loss beside KL bring the student closer to its teacher?",
        f"{AIM}; the paper has no such arm", "17_losses", "best_loss_divergence",
        "With the preset default's synthesis, at equal steps and at equal FLOPs; the loss was chosen on parts carved "
        "from train.",
        also=("best_loss_equal_flops",),
    ),
)  # fmt: skip
"""The paper's claims in its order, then the questions that it leaves open."""


def find_claim(id: str, claims: Sequence[Claim] = CLAIMS) -> Claim:
    """The claim of that identifier; a notebook takes its threshold from here."""
    known = {claim.id: claim for claim in claims}
    if id not in known:
        raise StudyError(f"Unknown claim {id!r}.{did_you_mean(id, known)}")
    return known[id]
