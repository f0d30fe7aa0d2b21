"""Built-in families of encoders: where each keeps its embeddings, blocks and head.

A family whose blocks are built as BERT's is data: the paths of the stock transformers modules. What computes the others
stands in the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sage_kit import hookimpl
from sage_kit.components import FamilySpec, HeadParts, lazy
from sage_kit.errors import CompatibilityError

MODERNBERT_HEAD = HeadParts(
    dense="head.dense",
    norm="head.norm",
    output="classifier",
    dropout="drop",
    activation="classifier_activation",
    pooling="classifier_pooling",
)
"""Of all models with a head."""

ROBERTA_HEAD = HeadParts(
    dense="classifier.dense",
    output="classifier.out_proj",
    dropout="classifier.dropout",
    first_dropout="classifier.dropout",
)


def _bert_head(pooler: str) -> HeadParts:
    return HeadParts(dense=pooler, output="classifier", dropout="dropout")


def _albert_refuses(config: Any) -> str:
    if config.num_hidden_groups != 1 or config.inner_group_num != 1:
        return (
            f"has {config.num_hidden_groups} groups of {config.inner_group_num} blocks (num_hidden_groups and "
            "inner_group_num in its config.json): choose an ALBERT of one block, as the published ones are"
        )
    return ""


def _deberta_refuses(config: Any) -> str:
    if getattr(config, "conv_kernel_size", 0):
        return (
            "has a convolution beside its first block (conv_kernel_size in its config.json): choose a DeBERTa without, "
            "such as deberta-v3-base"
        )
    return ""


def _modernbert_student(config: Any, blocks: Sequence[int | None]) -> None:
    """Each block keeps its kind of attention; only the first one of a model lacks the norm before its attention."""
    for place, block in enumerate(blocks):
        if block is not None and (place == 0) != (block == 0):
            raise CompatibilityError(
                f"the student's block {place} would start as the teacher's block {block}, but ModernBERT's first block "
                "alone has no norm before its attention, so that the student's first must be the teacher's: set "
                "student_init to 'uniform', or to a list that begins with 0 (the numbers start behind the input layers)"
            )
    kinds = list(config.layer_types)
    config.layer_types = [kinds[(place if block is None else block) % len(kinds)] for place, block in enumerate(blocks)]


def _narrow_embeddings(config: Any) -> None:
    config.embedding_size = config.hidden_size // 2


def _deberta_example(config: Any) -> None:
    """As DeBERTa v3, with fewer positions apart than texts are long."""
    config.relative_attention, config.share_att_key = True, True
    config.position_buckets, config.norm_rel_ebd, config.pos_att_type = 8, "layer_norm", ["p2c", "c2p"]
    config.position_biased_input, config.type_vocab_size = False, 0


def _modernbert_example(config: Any) -> None:
    """Local attention that is shorter than texts."""
    config.local_attention = 4


FAMILIES = (
    FamilySpec(
        name="bert",
        summary="BERT, MiniLM, E5, BGE and the like",
        model_types=("bert",),
        embeddings="bert.embeddings",
        blocks="bert.encoder.layer",
        head=_bert_head("bert.pooler.dense"),
        masked_lm=("cls",),
    ),
    FamilySpec(
        name="roberta",
        summary="RoBERTa, XLM-R, CamemBERT",
        model_types=("roberta", "xlm-roberta", "camembert"),
        embeddings="roberta.embeddings",
        blocks="roberta.encoder.layer",
        head=ROBERTA_HEAD,
        positions_from_padding=True,
        masked_lm=("lm_head",),
    ),
    FamilySpec(
        name="distilbert",
        summary="DistilBERT",
        model_types=("distilbert",),
        embeddings="distilbert.embeddings",
        blocks="distilbert.transformer.layer",
        head=HeadParts(dense="pre_classifier", output="classifier", dropout="dropout", activation="relu"),
        span_head=HeadParts(dense="", output="qa_outputs", dropout="dropout"),
        token_types=False,
        masked_lm=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    ),
    FamilySpec(
        name="mpnet",
        summary="MPNet, all-mpnet-base-v2",
        model_types=("mpnet",),
        embeddings="mpnet.embeddings",
        blocks="mpnet.encoder.layer",
        head=ROBERTA_HEAD,
        token_types=False,
        positions_from_padding=True,
        relative_positions="mpnet.encoder",
        attention="eager",
        masked_lm=("lm_head",),
    ),
    FamilySpec(
        name="electra",
        summary="ELECTRA; its embeddings may be narrower than its blocks",
        model_types=("electra",),
        embeddings="electra.embeddings",
        projection="electra.embeddings_project",
        blocks="electra.encoder.layer",
        head=HeadParts(
            dense="classifier.dense",
            output="classifier.out_proj",
            dropout="classifier.dropout",
            first_dropout="classifier.dropout",
            activation="gelu",
        ),
        masked_lm=("generator_predictions", "generator_lm_head"),
        example=_narrow_embeddings,
    ),
    FamilySpec(
        name="ernie",
        summary="ERNIE",
        model_types=("ernie",),
        embeddings="ernie.embeddings",
        blocks="ernie.encoder.layer",
        head=_bert_head("ernie.pooler.dense"),
        masked_lm=("cls",),
    ),
    FamilySpec(
        name="data2vec_text",
        summary="data2vec for text",
        model_types=("data2vec-text",),
        embeddings="data2vec_text.embeddings",
        blocks="data2vec_text.encoder.layer",
        head=ROBERTA_HEAD,
        positions_from_padding=True,
        masked_lm=("lm_head",),
    ),
    FamilySpec(
        name="albert",
        summary="ALBERT: one block, applied again and again",
        model_types=("albert",),
        embeddings="albert.embeddings",
        projection="albert.encoder.embedding_hidden_mapping_in",
        blocks="albert.encoder.albert_layer_groups.0.albert_layers",
        one_block=True,
        head=_bert_head("albert.pooler"),
        masked_lm=("predictions",),
        refuses=_albert_refuses,
        example=_narrow_embeddings,
    ),
    FamilySpec(
        name="deberta_v2",
        summary="DeBERTa v2 and v3: attention to content and to relative positions",
        model_types=("deberta-v2",),
        embeddings="deberta.embeddings",
        blocks="deberta.encoder.layer",
        shared=("deberta.encoder.rel_embeddings", "deberta.encoder.LayerNorm"),
        head=HeadParts(
            dense="pooler.dense",
            output="classifier",
            dropout="dropout",
            first_dropout="pooler.dropout",
            activation="pooler_hidden_act",
        ),
        attention="eager",
        own_blocks=True,
        factory=lazy("sage_kit.builtin.families.disentangled:DisentangledBlocks"),
        masked_lm=("cls",),
        refuses=_deberta_refuses,
        example=_deberta_example,
    ),
    FamilySpec(
        name="modernbert",
        summary="ModernBERT: rotary positions, local and global attention",
        requires=("transformers>=5.1",),
        model_types=("modernbert",),
        embeddings="model.embeddings",
        blocks="model.layers",
        final_norm="model.final_norm",
        head=MODERNBERT_HEAD,
        token_head=MODERNBERT_HEAD,
        span_head=MODERNBERT_HEAD,
        token_types=False,
        own_blocks=True,
        factory=lazy("sage_kit.builtin.families.rotary:ModernBlocks"),
        masked_lm=("head", "decoder"),
        student_config=_modernbert_student,
        example=_modernbert_example,
    ),
    FamilySpec(
        name="nomic_bert",
        summary="NomicBERT: rotary positions",
        requires=("transformers>=5.5",),
        model_types=("nomic_bert",),
        embeddings="nomic_bert.embeddings",
        blocks="nomic_bert.layers",
        head=_bert_head("nomic_bert.pooler.dense"),
        own_blocks=True,
        factory=lazy("sage_kit.builtin.families.rotary:NomicBlocks"),
        masked_lm=("cls",),
    ),
)
"""All built-in families."""


@hookimpl
def sage_families() -> Iterable[FamilySpec]:
    return FAMILIES
